"""The training loop: one step after the other, with the records that are due, until the last step
or a signal."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from uda.data.batch import Batch
from uda.data.overlap import copy_remarks, refuse_overlap
from uda.data.picture_kinds import kind_remarks
from uda.data.registry import datasets_of, root_of
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.start_checks import count_remarks, range_remarks
from uda.data.training import (
    TrainingData,
    declaration_remark,
    open_labeled_split,
    open_training_data,
)
from uda.evaluation.metrics import Scores, nothing_scored
from uda.experiment import Experiment, validate
from uda.labels.spaces import IGNORE_INDEX
from uda.training.preflight import too_large
from uda.training.records import (
    describe,
    evaluate_student,
    finish_records,
    keep_records,
    summarize,
)
from uda.training.run import Run
from uda.training.run_plan import RunPlan
from uda.training.scale_remarks import scale_remarks
from uda.training.session import Session, open_session
from uda.training.signals import FROM_PYTHON, EvaluationCutOff, Stopped, stop_on_signals
from uda.training.start import evaluate_first_weights, first_weights, initial_classes
from uda.training.step import train_step
from uda.training.tracking import progress_bar
from uda.utilities.distributed import check_batch_size
from uda.utilities.errors import InputError, require
from uda.utilities.host_memory import keep_freed_memory, saying_what_to_lower

_WATCHED = 10  # steps


def train(
    experiment: Experiment,
    path: Path,
    *,
    preset: str,
    device: torch.device,
    resume: bool | Path = False,
    resume_with: str = FROM_PYTHON,
    remarks: Sequence[str] = (),
    code_changed: bool = False,
    data_changed: bool = False,
) -> Scores:
    """Runs `experiment` to its end in the folder `path` and returns the scores of the last step.

    A preset of 0 steps is only evaluated. With `resume` the run continues from `path/resume.pth`,
    or from the file or folder given, and computes, bit for bit on the CPU, what it would have
    computed without the interruption. `resume_with`: the command or call that resumes it, for the
    message of a run that is stopped. `remarks` on the experiment are printed at start, with those
    that `validate` makes. Raises InputError before anything is written when the experiment, its
    data or the folder cannot be used; FloatingPointError when a loss is not finite; once the run
    can be resumed, Stopped when SIGTERM, SIGINT or SIGHUP has ended it, LoaderLostError when a
    loader process was killed.
    """
    experiment, found = validate(experiment)
    remarks = [f"remark: {remark}" for remark in (*remarks, *found)]
    if device.type == "cpu":
        keep_freed_memory()
    with stop_on_signals(resume_with) as stop:
        if experiment.train.steps == 0:
            require(not resume, "train.steps is 0: there is nothing to resume; omit --resume")
            print("".join(f"{remark}\n" for remark in remarks), end="")
            return evaluate_first_weights(experiment, path, preset=preset, device=device, stop=stop)
        data, validation = _open_data(experiment)
        check_batch_size(experiment.train.batch_size)
        plan = RunPlan(path, preset, experiment, data)
        if not resume:
            plan.refuse_if_used()
        with plan.opened(new=not resume):
            run, folder, unfinished = first_weights(
                plan,
                device=device,
                resume=resume,
                code_changed=code_changed,
                data_changed=data_changed,
            )
            with open_session(run, folder, validation, stop, unfinished=unfinished) as session:
                return _run_to_end(session, remarks, unfinished=unfinished)


def _open_data(experiment: Experiment) -> tuple[TrainingData, Sequence[Sample]]:
    """What the run trains on and what it is scored on: images that are not trained on, or, in a
    sanity check, those of the source alone."""
    scored = experiment.evaluation
    data = open_training_data(
        experiment.data,
        seed=experiment.train.seed,
        evaluated=scored.dataset if scored.every else None,
        progress=partial(progress_bar, description="count"),
        known_classes=initial_classes(experiment),
    )
    if experiment.teacher is not None:
        experiment.teacher.check_classes("teacher", data.label_space)
    if not scored.every:
        return data, []
    scored.class_sets(data.label_space)
    validation = open_labeled_split(
        root_of(experiment.data.root, [scored.dataset]),
        scored.dataset,
        scored.split,
        label_space=data.label_space,
        files=data.files,
    )
    trained = list(data.dataset.target)
    if experiment.train.sanity_check:
        source = {sample.name for sample in data.dataset.source}
        validation = [sample for sample in validation if sample.name in source]
        said = f"{data.supervision}; sanity check: scored on training images"
        data = replace(data, supervision=said)
    else:
        trained += data.dataset.source
    refuse_overlap(trained, validation, data.files)
    return data, validation


def _run_to_end(session: Session, remarks: Sequence[str], *, unfinished: bool) -> Scores:
    """Makes the remaining steps and their records; the scores of the last step."""
    session.tracker.say(describe(session))
    warnings = (f"warning: {remark}" for remark in _remarks(session))
    for line in (*remarks, *warnings):
        session.tracker.say(line)
    scores = None
    if unfinished or session.run.step < session.experiment.train.steps:
        scores = _make_steps(session, unfinished=unfinished)
    summarize(session)
    if not session.experiment.evaluation.every:
        return nothing_scored(session.label_space)
    # A run that was complete when it was resumed is only evaluated.
    return scores or evaluate_student(session).scores


def _make_steps(session: Session, *, unfinished: bool) -> Scores | None:
    """The remaining steps; the scores of the last, if it was evaluated. Raises Stopped."""
    run, train = session.run, session.experiment.train
    session.stop.begin_steps()
    scores = None
    try:
        if unfinished:
            scores = finish_records(session)
            session.save_resume()
        stream = batches(
            session.folder.data.dataset,
            batch_size=train.batch_size,
            first_step=run.step,
            steps=train.steps,
            workers=session.experiment.data.workers,
        )
        unlabeled = UnlabeledSteps()
        while run.step < train.steps:
            batch = session.stop.next_of(stream)
            if batch is None:
                raise _stopped(session)
            if warning := unlabeled.warning(batch, run.step):
                session.tracker.say(warning)
            with saying_what_to_lower(partial(_too_large, run, batch)):
                result = train_step(run, batch)
            scores = keep_records(session, result)
    except EvaluationCutOff:
        raise _stopped(session, unfinished=True) from None
    return scores


def _too_large(run: Run, batch: Batch) -> str:
    """What is said of a batch that does not fit into memory."""
    height, width = batch.source_images.shape[-2:]
    names = ", ".join(filter(None, (*batch.source_names, *batch.target_names)))
    images = f" with {len(batch.indices)} images of each domain at {width}x{height} ({names})"
    return (
        f"{too_large(run.experiment, run.device, images)}. What was saved before step {run.step} "
        "is intact"
    )


class UnlabeledSteps:
    """Watches whether the labels of the first steps are all ignored."""

    def __init__(self) -> None:
        self.seen = 0
        self.empty = {"source labels", "pseudo-labels", "target labels"}

    def warning(self, batch: Batch, step: int) -> str:
        """What to say before `step` of kinds of labels that had no class so far; mostly ""."""
        if self.seen == _WATCHED or not self.empty:
            return ""
        self.seen += 1
        kinds = {
            "source labels": batch.source_labels,
            "pseudo-labels": batch.target_pseudo_labels,
            "target labels": batch.target_ground_truth,
        }
        for name, labels in kinds.items():
            if labels is None or not labels.numel() or (labels != IGNORE_INDEX).any():
                self.empty.discard(name)
        if self.seen < _WATCHED or not self.empty:
            return ""
        return (
            f"step {step}: warning: no pixel of the {' and '.join(sorted(self.empty))} of "
            f"{_WATCHED} steps has a class: all were ignored, and nothing is learned from them"
        )


def _stopped(session: Session, *, unfinished: bool = False) -> Stopped | InputError:
    """What ends a run that has to stop; it is saved, its last step perhaps with
    `unfinished` records."""
    session.finite.check(weights=True)
    session.save_resume(unfinished=unfinished)
    return session.stop.stopped(session.run.step)


def _remarks(session: Session) -> list[str]:
    """What is worth knowing about the data before a run of days."""
    data, scored = session.experiment.data, session.experiment.evaluation
    opened = session.folder.data
    trained = opened.dataset
    copied = copy_remarks(trained.source, trained.target, session.validation, opened.files)
    read = [*trained.source, *trained.target, *session.validation]
    converted = kind_remarks(read, opened.files)
    scales = scale_remarks(session.experiment, trained, session.validation, opened.files)
    opened.files.finish()
    dataset = scored.dataset if scored.every else None
    root = root_of(data.root, [*filter(None, [dataset]), *datasets_of(data)])
    return [
        *copied,
        *scales,
        *converted,
        *declaration_remark(opened),
        *count_remarks(data, root, dataset=dataset, split=scored.split),
        *range_remarks(data, root, dataset=dataset, split=scored.split),
    ]
