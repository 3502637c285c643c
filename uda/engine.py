"""The training loop, and the one step it repeats."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uda.config import Experiment, validate
from uda.data.labels import LabelSpace
from uda.data.registry import data_root
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.training import TrainingData, open_labeled_split, open_training_data
from uda.errors import InputError
from uda.evaluation import evaluate, predictions, protocol
from uda.metrics import Scores
from uda.models import build_segmenter
from uda.models.segmenter import Segmenter
from uda.objectives.base import Objective, StepContext
from uda.optimizers import ParameterGroup, build_optimizer, set_learning_rate
from uda.plain import to_plain
from uda.reports import scores_json
from uda.run_folder import RunFolder
from uda.schedules import learning_rate_factor
from uda.snapshots import load as load_snapshot
from uda.snapshots import load_weights, sha256
from uda.teacher import MeanTeacher
from uda.tracking import Tracker, prediction_panel, progress_bar, view_panel
from uda.views import Batch, View

STUDENT = "student"  # name of the student's optimizer; the others bear their objective's name
_PANEL_ROWS = 3  # validation images in TensorBoard


@dataclass(slots=True)
class Run:
    """All that changes while a run goes on. `step` counts the updates made so far."""

    experiment: Experiment
    device: torch.device
    student: Segmenter
    teacher: MeanTeacher | None
    objectives: dict[str, Objective]
    optimizers: dict[str, torch.optim.Optimizer]
    step: int = 0

    def state(self) -> dict[str, Any]:
        """What `load_state` needs to go on as if nothing had happened, beside the snapshot."""
        start = _teacher_start(self)
        # Before anybody has asked it, the teacher knows nothing that should be kept.
        teacher = self.teacher if start is not None and self.step > start else None
        return {
            "step": self.step,
            "student": self.student.state_dict(),
            "teacher": None if teacher is None else teacher.network.state_dict(),
            "objectives": {name: o.state_dict() for name, o in self.objectives.items()},
            "optimizers": {name: o.state_dict() for name, o in self.optimizers.items()},
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state` returned in another process."""
        self.step = state["step"]
        self.student.load_state_dict(state["student"])
        if self.teacher is not None and state["teacher"] is not None:
            self.teacher.network.load_state_dict(state["teacher"])
        for name, objective in self.objectives.items():
            objective.load_state_dict(state["objectives"][name])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])


def start_run(experiment: Experiment, *, num_classes: int, device: torch.device) -> Run:
    """A run at step 0, its first weights drawn from the preset's seed."""
    torch.manual_seed(experiment.train.seed)
    student = build_segmenter(experiment.model, num_classes).to(device)
    student = student.to(memory_format=torch.channels_last)
    teacher = None if experiment.teacher is None else MeanTeacher(student, experiment.teacher)
    objectives = {}
    for name, config in experiment.objectives.items():
        objectives[name] = config.build(num_classes).to(device)
    groups: list[ParameterGroup] = [
        {"params": student.backbone_parameters(), "lr_factor": 1.0},
        {"params": student.head_parameters(), "lr_factor": experiment.train.head_lr_factor},
    ]
    optimizers = {STUDENT: build_optimizer(experiment.train.optimizer, groups)}
    for name, objective in objectives.items():
        if objective.optimizer is not None:
            own: ParameterGroup = {"params": list(objective.parameters()), "lr_factor": 1.0}
            optimizers[name] = build_optimizer(objective.optimizer, [own])
    return Run(experiment, device, student, teacher, objectives, optimizers)


class StepResult(NamedTuple):
    """What a step leaves for the records; reading a loss back waits for the device."""

    losses: dict[str, Tensor]  # scalars, detached, by "loss/<objective>/<term>"
    views: list[View]  # what the student saw


def train_step(run: Run, batch: Batch) -> StepResult:
    """One update of every network; the only place that calls backward().

    Each view that an objective reads is seen by the student once: forward, the terms of all its
    readers, backward. So memory holds one view's graph at a time.
    """
    train = run.experiment.train
    # What is drawn from torch's global generator (dropout) follows from (seed, step) alone.
    torch.manual_seed(_step_seed(train.seed, run.step))
    batch = batch.to_device(run.device)
    active = {n: o for n, o in run.objectives.items() if run.step >= o.config.start_step}
    context = StepContext(run.step, train.seed, batch.indices, run.teacher)
    _start_teacher(run)
    run.student.train()
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)

    losses: dict[str, Tensor] = {}
    seen = []
    for view in _collect_views(run, active, batch, context):
        readers = {name: o for name, o in active.items() if view.name in o.reads}
        if not readers:
            continue
        seen.append(view)
        with _autocast(run):
            output = run.student(view.images)
            terms = {
                f"loss/{name}/{term}": objective.config.weight * value
                for name, objective in readers.items()
                for term, value in objective.terms(view, output, context).items()
            }
        _backward(terms, losses)
    for name, objective in active.items():
        with _autocast(run):
            own = objective.after_backward(context)
        _backward({f"loss/{name}/{term}": value for term, value in own.items()}, losses)

    _update(run, active)
    for objective in active.values():
        objective.after_step(context)
    run.step += 1
    return StepResult(losses, seen)


def _collect_views(
    run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
) -> list[View]:
    """The step's views in order: source, target, then those of the objectives."""
    views = [View("source", batch.source_images, batch.source_labels)]
    if len(batch.target_images):
        views.append(View("target", batch.target_images, batch.target_pseudo_labels))
    for objective in active.values():
        with _autocast(run):
            views += objective.views(batch, context)
    names = [view.name for view in views]
    if len(set(names)) != len(names):
        raise InputError(f"two objectives add a view of the same name: {', '.join(names)}")
    return views


def _backward(terms: Mapping[str, Tensor], losses: dict[str, Tensor]) -> None:
    """Adds the gradients of the sum of `terms`, and their values to `losses`."""
    if terms:
        torch.stack(list(terms.values())).sum().backward()
        losses.update({name: value.detach() for name, value in terms.items()})


def _update(run: Run, active: Mapping[str, Objective]) -> None:
    """The optimizers step, each at its own rate, and the teacher follows."""
    for name, optimizer in run.optimizers.items():
        if name == STUDENT or name in active:
            set_learning_rate(optimizer, _learning_rate(run, name))
            optimizer.step()
    start = _teacher_start(run)
    if run.teacher is not None and start is not None and run.step >= start:
        run.teacher.update(run.student, updates=run.step - start)


def _learning_rate(run: Run, name: str) -> float:
    """The base rate of an optimizer at the step under way; only the student's warms up."""
    train = run.experiment.train
    config = train.optimizer if name == STUDENT else run.objectives[name].optimizer
    assert config is not None
    warmup_steps = train.warmup_steps if name == STUDENT else 0
    factor = learning_rate_factor(
        run.step, steps=train.steps, warmup_steps=warmup_steps, power=train.power
    )
    return config.lr * factor


def _teacher_start(run: Run) -> int | None:
    """The first step in which somebody asks the teacher; until then it need not move."""
    users = [c for c in run.experiment.objectives.values() if "teacher" in c.needs()]
    return min((config.start_step for config in users), default=None)


def _start_teacher(run: Run) -> None:
    if run.teacher is not None and run.step == _teacher_start(run):
        run.teacher.restart(run.student)


def _autocast(run: Run) -> torch.autocast:
    enabled = run.experiment.train.precision == "bfloat16"
    return torch.autocast(run.device.type, torch.bfloat16, enabled=enabled)


def _step_seed(seed: int, step: int) -> int:
    return int(np.random.SeedSequence((seed, step)).generate_state(1, np.uint64)[0] >> 1)


def train(
    experiment: Experiment, path: Path, *, preset: str, device: torch.device, resume: bool = False
) -> Scores:
    """Runs `experiment` to its end in the folder `path` and returns the scores of the last step.

    With `resume` it goes on from `path/resume.pth` and computes, bit for bit on the CPU, what it
    would have computed without the interruption. Raises InputError before anything is written when
    the experiment, its data or the folder cannot be used.
    """
    validate(experiment)
    settings = experiment.train
    data = open_training_data(
        experiment.data, seed=settings.seed, evaluated=experiment.evaluation.dataset
    )
    validation = open_labeled_split(
        data_root(experiment.data.root),
        experiment.evaluation.dataset,
        experiment.evaluation.split,
        label_space=data.label_space,
    )
    run = start_run(experiment, num_classes=data.label_space.num_classes, device=device)
    folder = _open_folder(run, data, path, preset=preset, resume=resume)
    with (
        folder.opened(),
        Tracker(
            path,
            name=path.name,
            steps=settings.steps,
            first_step=run.step,
            batch_size=settings.batch_size,
        ) as tracker,
    ):
        tracker.say(_description(run, folder, validation))
        stream = batches(
            data.dataset,
            batch_size=settings.batch_size,
            first_step=run.step,
            steps=settings.steps,
            workers=experiment.data.workers,
        )
        scores = None
        for batch in stream:
            result = train_step(run, batch)
            tracker.advance()
            scores = _keep_records(run, folder, result, tracker, validation)
        # A run that was complete when it was resumed is only evaluated.
        return scores or _evaluate(run, data.label_space, validation)


def _open_folder(
    run: Run, data: TrainingData, path: Path, *, preset: str, resume: bool
) -> RunFolder:
    """The run's folder, found fit for it, and the run's first weights as they have to be."""
    supervision, initial_weights = data.supervision, run.student.provenance
    if run.experiment.train.initial_snapshot is not None:
        initial = Path(run.experiment.train.initial_snapshot)
        snapshot = load_snapshot(initial)
        load_weights(run.student, snapshot.student, origin=str(initial))
        initial_weights = f"{initial.name} sha256:{sha256(initial)[:12]}"
        if "ground truth" in snapshot.supervision:
            supervision += f"; initial weights made with: {snapshot.supervision}"
    folder = RunFolder(path, preset, to_plain(run.experiment), data, supervision, initial_weights)
    if resume:
        run.load_state(folder.load_resume())
    else:
        folder.refuse_if_used()
    return folder


def _description(run: Run, folder: RunFolder, validation: Sequence[Sample]) -> str:
    """What is about to happen, for a person to check."""
    dataset = folder.data.dataset
    parameters = sum(parameter.numel() for parameter in run.student.parameters()) / 1e6
    source, target = len(dataset.source), len(dataset.target)
    return "\n".join(
        [
            f"preset           {folder.preset}, seed {run.experiment.train.seed}",
            f"data             {source} source images with labels, {target} target images without",
            f"supervision      {folder.supervision} (of the target)",
            f"network          {run.experiment.model.backbone}, {parameters:.2f} M parameters",
            f"initial weights  {folder.initial_weights}",
            f"objectives       {', '.join(run.objectives)}",
            f"evaluation       {protocol(run.experiment.evaluation)}; {len(validation)} images",
            f"steps            {run.step} to {run.experiment.train.steps}, on {run.device.type}",
            f"folder           {folder.path}",
        ]
    )


def _keep_records(
    run: Run,
    folder: RunFolder,
    result: StepResult,
    tracker: Tracker,
    validation: Sequence[Sample],
) -> Scores | None:
    """Losses, scores and files of the step just made, where they are due; its scores, if any."""
    train, last = run.experiment.train, run.step == run.experiment.train.steps

    def due(every: int) -> bool:
        return last or run.step % every == 0

    # Also before anything is saved: a run that has gone wrong must not replace one that had not.
    if any(map(due, (train.log_every, train.snapshot_every, train.resume_every))):
        lr = run.optimizers[STUDENT].param_groups[0]["lr"]
        tracker.log(run.step, result.losses, lr=lr)
    scores = None
    if due(run.experiment.evaluation.every):
        space = folder.data.label_space
        scores = _evaluate(run, space, validation)
        tracker.record_scores(run.step, scores, space.report_names)
        tracker.picture(run.step, "views", view_panel(result.views, space))
        tracker.picture(run.step, "predictions", _prediction_panel(run, space, validation))
    if due(train.snapshot_every):
        plain = None
        if scores is not None:
            plain = scores_json(scores, folder.data.label_space.report_names)
        folder.save_snapshot(run.state(), plain)
    if due(train.resume_every):
        folder.save_resume(run.state())
    return scores


def _evaluate(run: Run, label_space: LabelSpace, validation: Sequence[Sample]) -> Scores:
    """Scores of the student; its training goes on as if it had not been evaluated."""
    return evaluate(
        run.student,
        validation,
        config=run.experiment.evaluation,
        label_space=label_space,
        workers=run.experiment.data.workers,
        progress=partial(progress_bar, total=len(validation), description="evaluate"),
    )


def _prediction_panel(run: Run, label_space: LabelSpace, validation: Sequence[Sample]) -> Tensor:
    config = replace(run.experiment.evaluation, scales=(1.0,), flip=False)
    found = predictions(
        run.student,
        validation[: 1 if config.input_size is None else _PANEL_ROWS],  # one size per panel
        config=config,
        label_space=label_space,
        workers=0,
    )
    return prediction_panel(found, label_space)
