"""The training loop: step after step, with the records that are due, to the end or a signal."""

from collections.abc import Sequence
from pathlib import Path

import torch

from uda.data.registry import datasets_of, root_of
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.start_checks import count_remarks, range_remarks
from uda.data.training import TrainingData, open_labeled_split, open_training_data
from uda.evaluation.metrics import Scores
from uda.experiment import Experiment, validate
from uda.training.nonfinite import LossWatch
from uda.training.records import describe, evaluate_student, finish_records, keep_records, summarize
from uda.training.run_folder import RunFolder
from uda.training.signals import EvaluationCutOff, Stop, stop_on_signals
from uda.training.start import Start, evaluate_first_weights, first_weights
from uda.training.step import train_step
from uda.training.tracking import Tracker
from uda.utilities.config_tree import to_plain
from uda.utilities.distributed import check_batch_size
from uda.utilities.errors import require
from uda.utilities.host_memory import keep_freed_memory


def train(
    experiment: Experiment,
    path: Path,
    *,
    preset: str,
    device: torch.device,
    resume: bool | Path = False,
) -> Scores:
    """Runs `experiment` to its end in the folder `path` and returns the scores of the last step.

    A preset of 0 steps is only evaluated. With `resume` it goes on from `path/resume.pth`, or from
    the file or folder given, and computes, bit for bit on the CPU, what it would have computed
    without the interruption. Raises InputError before anything is written when the experiment, its
    data or the folder cannot be used; FloatingPointError when a loss is not finite; Stopped when
    SIGTERM or SIGINT has ended it, once it can be resumed.
    """
    validate(experiment)
    if device.type == "cpu":
        keep_freed_memory()
    settings = experiment.train
    with stop_on_signals() as stop:
        if settings.steps == 0:
            require(not resume, "train.steps is 0: there is nothing to resume; leave --resume")
            return evaluate_first_weights(experiment, path, preset=preset, device=device)
        data = open_training_data(
            experiment.data, seed=settings.seed, evaluated=experiment.evaluation.dataset
        )
        validation = open_labeled_split(
            root_of(experiment.data.root, [experiment.evaluation.dataset]),
            experiment.evaluation.dataset,
            experiment.evaluation.split,
            label_space=data.label_space,
        )
        _refuse_overlap(data, validation)
        check_batch_size(settings.batch_size)
        folder = RunFolder(path, preset, to_plain(experiment), data, data.supervision, "")
        if not resume:
            folder.refuse_if_used()
        with folder.opened(new=not resume):
            start = first_weights(experiment, folder, device=device, resume=resume)
            return _run_to_end(start, validation, stop)


def _run_to_end(start: Start, validation: Sequence[Sample], stop: Stop) -> Scores:
    """Makes the steps that are left and their records; the scores of the last step."""
    run, folder = start.run, start.folder
    settings = run.experiment.train
    with Tracker(
        folder.path,
        name=folder.path.name,
        steps=settings.steps,
        first_step=run.step,
        batch_size=settings.batch_size,
        unfinished=start.unfinished,
    ) as tracker:
        tracker.say(describe(run, folder, validation))
        for remark in _remarks(run.experiment):
            tracker.say(f"warning: {remark}")
        scores = None
        if start.unfinished or run.step < settings.steps:
            scores = _make_steps(start, validation, stop, tracker)
        summarize(folder, tracker)
        # A run that was complete when it was resumed is only evaluated.
        return scores or evaluate_student(run, folder.data.label_space, validation, stop).scores


def _remarks(experiment: Experiment) -> list[str]:
    """What a person should know of the data before a run of days."""
    data, scored = experiment.data, experiment.evaluation
    root = root_of(data.root, [scored.dataset, *datasets_of(data)])
    used = {"dataset": scored.dataset, "split": scored.split}
    return [*count_remarks(data, root, **used), *range_remarks(data, root, **used)]


def _make_steps(
    start: Start, validation: Sequence[Sample], stop: Stop, tracker: Tracker
) -> Scores | None:
    """The steps that are left; the scores of the last, if it was evaluated. Raises Stopped."""
    run, folder = start.run, start.folder
    settings = run.experiment.train
    watch = LossWatch(folder)
    stop.begin_steps()
    scores = None
    try:
        if start.unfinished:
            scores = finish_records(run, folder, tracker, validation, stop=stop)
            folder.save_resume(run.state())
        stream = batches(
            folder.data.dataset,
            batch_size=settings.batch_size,
            first_step=run.step,
            steps=settings.steps,
            workers=run.experiment.data.workers,
        )
        for batch in stream:
            result = train_step(run, batch)
            tracker.advance()
            scores = keep_records(run, folder, result, tracker, validation, watch=watch, stop=stop)
            if run.step < settings.steps and stop.agreed():
                watch.check(run)
                folder.save_resume(run.state())
                raise stop.stopped(run.step)
    except EvaluationCutOff:
        watch.check(run)
        folder.save_resume(run.state(), unfinished=True)
        raise stop.stopped(run.step) from None
    return scores


def _refuse_overlap(data: TrainingData, validation: Sequence[Sample]) -> None:
    """No image is scored that was trained on, with labels or without, by whatever name."""
    scored = {sample.name for sample in validation}
    files = {sample.image.absolute() for sample in validation}
    for domain in (data.dataset.source, data.dataset.target):
        both = sorted(s.name for s in domain if s.name in scored or s.image.absolute() in files)
        require(
            not both,
            f"{len(both)} images are both trained on and scored, the first is {both[:1]}: choose "
            "other splits in data.source, data.target or evaluation.split",
        )
