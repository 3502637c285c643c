"""What a run leaves behind: losses, scores, pictures and files, as they are due."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial

from torch import Tensor

from uda.data.batch import View
from uda.data.samples import Sample
from uda.data.training import TrainingData
from uda.evaluation.evaluate import Views, evaluate, predictions, protocol_line
from uda.evaluation.inference import Prediction
from uda.evaluation.label_free import label_free_criteria
from uda.evaluation.measures import Measured
from uda.evaluation.metrics import Scores
from uda.evaluation.reports import fact_lines, scores_json
from uda.labels.spaces import LabelSpace
from uda.objectives.counts import of_all_processes
from uda.training.monitors import watched
from uda.training.nonfinite import LossWatch
from uda.training.run import STUDENT, Run, StepResult
from uda.training.run_folder import RunFolder
from uda.training.signals import Stop
from uda.training.summary import summarized, summary_text, write_summary
from uda.training.tracking import Tracker, prediction_panel, progress_bar, view_panel
from uda.utilities.distributed import is_main, own_share, world_size

_PANEL_ROWS = 3  # validation images in TensorBoard


def describe(run: Run, folder: RunFolder, validation: Sequence[Sample]) -> str:
    """What is about to happen, for a person to check."""
    dataset = folder.data.dataset
    domains = {"source": dataset.source, "target": dataset.target}
    data = [_count(samples, name) for name, samples in domains.items() if samples]
    data.append(f"{len(validation)} images to evaluate")
    parameters = sum(parameter.numel() for parameter in run.student.parameters()) / 1e6
    return "\n".join(
        [
            f"preset           {folder.preset}, seed {run.experiment.train.seed}",
            f"data             {', '.join(data)}",
            f"supervision      {folder.supervision} (of the target)",
            f"network          {type(run.student).__name__} on {run.experiment.model.backbone}, "
            f"{parameters:.2f} M parameters",
            f"initial weights  {folder.initial_weights}",
            f"objectives       {', '.join(run.objectives)}",
            f"evaluation       {protocol_line(run.experiment.evaluation)}",
            f"steps            {run.step} to {run.experiment.train.steps}, on {run.device.type}"
            + (f", {world_size()} processes" if world_size() > 1 else ""),
            f"folder           {folder.path}",
        ]
    )


def _count(samples: Sequence[Sample], domain: str) -> str:
    labels = "without labels" if samples[0].labels is None else "with labels"
    return f"{len(samples)} {domain} images {labels}"


def keep_records(
    run: Run,
    folder: RunFolder,
    result: StepResult,
    tracker: Tracker,
    validation: Sequence[Sample],
    *,
    watch: LossWatch,
    stop: Stop,
) -> Scores | None:
    """Losses, scores and files of the step just made, where they are due; its scores, if any.

    Raises FloatingPointError when a loss is not finite, and EvaluationCutOff at a signal.
    """
    train = run.experiment.train
    due = partial(train.is_due, run.step)
    watch.see(run, result, tracker)
    # Also before anything is saved: a run that has gone wrong must not replace one that had not.
    if any(map(due, (train.log_every, train.snapshot_every, train.resume_every))):
        watch.check(run)
        if not result.skipped:
            lr = run.optimizers[STUDENT].param_groups[0]["lr"]
            tracker.log(run.step, result.losses, lr=lr)
    if result.watched and not result.skipped:
        counts = of_all_processes(result.watched)
        tracker.watch(run.step, watched(counts, folder.data.label_space.report_names))
    return finish_records(run, folder, tracker, validation, views=result.views, stop=stop)


def finish_records(
    run: Run,
    folder: RunFolder,
    tracker: Tracker,
    validation: Sequence[Sample],
    *,
    stop: Stop,
    views: Sequence[View] = (),
) -> Scores | None:
    """What `keep_records` does once the losses are recorded: scores, pictures, files."""
    train = run.experiment.train
    due = partial(train.is_due, run.step)
    scores, plain = None, None
    if due(run.experiment.evaluation.every):
        space = folder.data.label_space
        scores, facts = evaluate_student(run, space, validation, stop)
        criteria = label_free(run, folder.data, stop)
        way = protocol_line(run.experiment.evaluation)
        plain = scores_json(scores, space.report_names, protocol=way, **facts)
        tracker.record_scores(run.step, scores, space.report_names, protocol=way, facts=facts)
        tracker.record_label_free(run.step, criteria)
        _ask_plateau(run, scores, tracker)
        tracker.say(
            f"step {run.step}: mIoU {100 * scores.miou:.2f} (supervision: {folder.supervision})"
        )
        for line in fact_lines(facts):
            tracker.say(f"step {run.step}: {line}")
        if is_main():
            if views:  # gone with the process that made the step when a signal came in between
                tracker.picture(run.step, "views", view_panel(views, space))
            tracker.picture(run.step, "predictions", _prediction_panel(run, space, validation))
    if due(train.snapshot_every):
        folder.save_snapshot(run.state(), plain)
    if due(train.resume_every):
        folder.save_resume(run.state())
    return scores


def _ask_plateau(run: Run, scores: Scores, tracker: Tracker) -> None:
    """Shows the evaluation to the plateau, while it sets the rate, and records what it found."""
    plateau = run.plateau
    if plateau is None or run.step >= run.experiment.train.plateau_end:
        return
    before = plateau.factor
    seen = plateau.observe(scores.miou)
    tracker.record_plateau(run.step, seen, plateau)
    if plateau.factor < before:
        tracker.say(
            f"step {run.step}: {plateau.config.watches} has not improved: the learning rate is now "
            f"{plateau.factor:g} times the base rate"
        )


def evaluate_student(
    run: Run, label_space: LabelSpace, validation: Sequence[Sample], stop: Stop
) -> Measured:
    """Scores and measures of the student; its training goes on as if it had not been evaluated.
    Raises EvaluationCutOff when a signal asks the run to stop."""
    total = len(own_share(validation))

    def progress(found: Iterable[tuple[Views, Prediction]]) -> Iterable[tuple[Views, Prediction]]:
        return progress_bar(stop.cut_off(found), total=total, description="evaluate")

    return evaluate(
        run.student,
        validation,
        config=run.experiment.evaluation,
        label_space=label_space,
        workers=run.experiment.data.workers,
        progress=progress,
    )


def label_free(run: Run, data: TrainingData, stop: Stop) -> dict[str, float]:
    """The label-free criteria of the student on target images; {} where a run has none of them.
    Raises EvaluationCutOff when a signal asks the run to stop."""
    return label_free_criteria(
        run.student,
        data.dataset.target,
        count=run.experiment.train.unlabeled_images,
        config=run.experiment.evaluation,
        label_space=data.label_space,
        workers=run.experiment.data.workers,
        progress=stop.cut_off,
    )


def summarize(folder: RunFolder, tracker: Tracker) -> None:
    """Writes summary.json and prints what each way of choosing a step would have come to."""
    if not is_main():
        return
    summary = summarized(tracker.lines(), folder.snapshot_path)
    if summary.steps:
        write_summary(folder.path / "summary.json", summary)
        tracker.say(summary_text(summary))


def _prediction_panel(run: Run, label_space: LabelSpace, validation: Sequence[Sample]) -> Tensor:
    config = replace(run.experiment.evaluation, scales=(1.0,), flip=False)
    found = predictions(
        run.student,
        validation[:_PANEL_ROWS],
        config=config,
        label_space=label_space,
        workers=0,
    )
    return prediction_panel(found, label_space)
