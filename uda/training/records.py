"""What a run leaves behind: losses, scores, pictures and files, each when it is due."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from torch import Tensor

from uda.data.batch import View
from uda.data.config import DataConfig
from uda.data.samples import Sample
from uda.data.sampling import TrainingDataset
from uda.evaluation.evaluate import evaluate, predictions, protocol_line
from uda.evaluation.inference import Prediction
from uda.evaluation.label_free import label_free_criteria
from uda.evaluation.measures import Measured
from uda.evaluation.metrics import Scores
from uda.evaluation.reports import fact_lines, scores_json
from uda.evaluation.views import Views
from uda.experiment import Experiment
from uda.labels.spaces import LabelSpace
from uda.models.segmenter import Segmenter
from uda.objectives.counts import of_all_processes
from uda.training.monitors import figures_of
from uda.training.run import STUDENT, StepResult
from uda.training.scale_remarks import size_lines
from uda.training.session import Session
from uda.training.signals import Stop
from uda.training.summary import summarized, summary_text, write_summary
from uda.training.tracking import prediction_panel, progress_bar, view_panel
from uda.utilities.distributed import is_main, own_share, world_size

_PANEL_ROWS = 3  # validation images in TensorBoard


def describe(session: Session) -> str:
    """What is about to happen, one line for each thing to check before a run of days."""
    run, folder, experiment = session.run, session.folder, session.experiment
    dataset = folder.data.dataset
    domains = {"source": dataset.source, "target": dataset.target}
    data = [_count(samples, name) for name, samples in domains.items() if samples]
    scored = experiment.evaluation.every > 0
    data.append(f"{len(session.validation)} images to evaluate" if scored else "none to evaluate")
    evaluation = protocol_line(experiment.evaluation) if scored else "none: evaluation.every is 0"
    extended = experiment.train.extended_from
    parameters = sum(parameter.numel() for parameter in run.student.parameters()) / 1e6
    return "\n".join(
        [
            f"preset           {folder.preset}, seed {experiment.train.seed}",
            f"data             {', '.join(data)}",
            f"sizes            {'; '.join(size_lines(experiment))}",
            f"supervision      {folder.supervision} (of the target)",
            *(f"translation      {translation.line}" for translation in folder.data.translations),
            *_shares(experiment.data, dataset),
            f"network          {experiment.model.title}, {parameters:.2f} M parameters",
            f"initial weights  {folder.initial_weights}",
            f"objectives       {', '.join(run.objectives)}",
            f"evaluation       {evaluation}",
            f"steps            {run.step} to {experiment.train.steps}, on {run.device.type}"
            + (f", {world_size()} processes" if world_size() > 1 else "")
            + (f", extended from {', '.join(map(str, extended))}" if extended else ""),
            *(
                f"data changed     at step {step}, as --data-changed has allowed"
                for step in folder.data_changed_at
            ),
            f"folder           {folder.path}",
        ]
    )


def _shares(data: DataConfig, dataset: TrainingDataset) -> Iterator[str]:
    """How often samples are of each data set, where these have weights, and of rare classes."""
    for title, domain, choice in zip(
        ("source sets", "target sets"), (data.source, data.target), dataset.sets, strict=True
    ):
        if domain is not None and choice is not None:
            sets = zip(domain.datasets, choice.shares, choice.members, strict=True)
            words = [f"{n} {100 * share:.1f} % ({len(own)} images)" for n, share, own in sets]
            yield f"{title:<17}{', '.join(words)}"
    weighted = data.source is not None and data.source.weights is not None
    for place, rare in enumerate(dataset.rare_classes):
        of_set = f"{data.source.datasets[place]}: " if data.source and weighted else ""
        yield f"rare classes     {of_set}{rare.line}"


def _count(samples: Sequence[Sample], domain: str) -> str:
    labels = "without labels" if samples[0].labels is None else "with labels"
    return f"{len(samples)} {domain} images {labels}"


def keep_records(session: Session, result: StepResult) -> Scores | None:
    """Losses, scores and files of the step just made, where they are due; its scores, if any.

    Raises FloatingPointError when a loss is not finite, and EvaluationCutOff at a signal.
    """
    run, train, tracker = session.run, session.experiment.train, session.tracker
    session.finite.add(result)
    saved = (train.snapshot_every, train.resume_every, session.experiment.evaluation.every)
    used = any(map(session.is_due, saved))
    if used or session.is_due(train.log_every):
        session.finite.check(weights=used)
    logged = (train.log_every, train.snapshot_every, train.resume_every)
    if any(map(session.is_due, logged)) and not result.skipped:
        lr = run.optimizers[STUDENT].param_groups[0]["lr"]
        tracker.log(run.step, result.losses, lr=lr)
    if result.counts and not result.skipped:
        counts = of_all_processes(result.counts)
        tracker.record_figures(run.step, figures_of(counts, session.label_space.report_names))
    return finish_records(session, views=result.views)


def finish_records(session: Session, *, views: Sequence[View] = ()) -> Scores | None:
    """What `keep_records` does once the losses are recorded: scores, pictures, files."""
    train = session.experiment.train
    scores, plain = None, None
    if session.is_due(session.experiment.evaluation.every):
        measured = evaluate_student(session)
        scores, plain = measured.scores, _record_scores(session, measured)
        if is_main():
            _record_pictures(session, views)
    if session.is_due(train.snapshot_every):
        session.folder.save_snapshot(session.run.state(), plain)
    if session.is_due(train.resume_every):
        session.save_resume()
    return scores


def _record_scores(session: Session, measured: Measured) -> dict[str, object]:
    """Records and prints an evaluation of the student; the scores as plain values."""
    step, tracker, names = session.run.step, session.tracker, session.label_space.report_names
    scores, facts = measured
    criteria = _label_free(session)
    protocol = protocol_line(session.experiment.evaluation)
    tracker.record_scores(step, scores, names, protocol=protocol, facts=facts)
    tracker.record_label_free(step, criteria)
    _update_plateau(session, scores)
    supervision = session.folder.supervision
    left_out = len(scores.unscored)
    over = f", over {len(names) - left_out} of {len(names)} classes" if left_out else ""
    tracker.say(f"step {step}: mIoU {100 * scores.miou:.2f}{over} (supervision: {supervision})")
    for line in fact_lines(facts):
        tracker.say(f"step {step}: {line}")
    return scores_json(scores, names, protocol=protocol, **facts)


def _record_pictures(session: Session, views: Sequence[View]) -> None:
    """Panels of what the student was trained on and of what it predicts."""
    step, space = session.run.step, session.label_space
    if views:  # none where a signal ended the process that made the step
        session.tracker.picture(step, "views", view_panel(views, space))
    session.tracker.picture(step, "predictions", _prediction_panel(session))


def _update_plateau(session: Session, scores: Scores) -> None:
    """Shows the scores to the plateau, while it sets the rate, and records what it found."""
    run, tracker, plateau = session.run, session.tracker, session.run.plateau
    if plateau is None or run.step >= session.experiment.train.plateau_end:
        return
    before = plateau.factor
    value = plateau.observe(scores.miou)
    tracker.record_plateau(run.step, value, plateau)
    if plateau.factor < before:
        tracker.say(
            f"step {run.step}: {plateau.config.watches} has not improved: the learning rate is now "
            f"{plateau.factor:g} times the base rate"
        )


def evaluate_student(session: Session) -> Measured:
    """Scores and measures of the student, which keep training as it was.
    Raises EvaluationCutOff when a signal asks the run to stop."""
    return evaluate_network(
        session.run.student,
        session.validation,
        experiment=session.experiment,
        label_space=session.label_space,
        stop=session.stop,
    )


def evaluate_network(
    network: Segmenter,
    samples: Sequence[Sample],
    *,
    experiment: Experiment,
    label_space: LabelSpace,
    stop: Stop,
) -> Measured:
    """Scores and measures of a network as `experiment` evaluates it, with a progress bar.
    Raises EvaluationCutOff when a signal asks the run to stop."""
    total = len(own_share(samples))

    def progress(found: Iterable[tuple[Views, Prediction]]) -> Iterable[tuple[Views, Prediction]]:
        return progress_bar(stop.cut_off(found), total=total, description="evaluate")

    return evaluate(
        network,
        samples,
        config=experiment.evaluation,
        label_space=label_space,
        workers=experiment.data.workers,
        progress=progress,
    )


def _label_free(session: Session) -> dict[str, float]:
    """The label-free criteria of the student on target images; {} for a run without a target.
    Raises EvaluationCutOff when a signal asks the run to stop."""
    experiment = session.experiment
    return label_free_criteria(
        session.run.student,
        session.folder.data.dataset.target,
        count=experiment.train.unlabeled_images,
        config=experiment.evaluation,
        label_space=session.label_space,
        workers=experiment.data.workers,
        progress=session.stop.cut_off,
    )


def summarize(session: Session) -> None:
    """Writes summary.json and prints which step each selection criterion would have chosen."""
    if not is_main():
        return
    folder, tracker = session.folder, session.tracker
    summary = summarized(tracker.lines(), folder.snapshot_path)
    if summary.steps:
        write_summary(folder.path / "summary.json", summary)
        tracker.say(summary_text(summary))


def _prediction_panel(session: Session) -> Tensor:
    config = replace(session.experiment.evaluation, scales=(1.0,), flip=False)
    found = predictions(
        session.run.student,
        session.validation[:_PANEL_ROWS],
        config=config,
        label_space=session.label_space,
        workers=0,
    )
    return prediction_panel(found, session.label_space)
