"""The training loop, and the one step it repeats."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uda.config import Experiment, validate
from uda.data.registry import data_root, layout_named
from uda.data.samples import Sample
from uda.data.sampling import batches
from uda.data.training import TrainingData, open_labeled_split, open_training_data
from uda.distributed import check_batch_size, is_main, own_share, rank, wait_for_all
from uda.errors import InputError, require
from uda.evaluation import evaluate, protocol_line
from uda.host_memory import keep_freed_memory
from uda.metrics import Scores
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Objective, StepContext
from uda.optimizers import set_learning_rate
from uda.plain import to_plain
from uda.records import describe, evaluate_student, keep_records
from uda.reports import scores_json
from uda.run import STUDENT, Run, StepResult, start_run
from uda.run_folder import RunFolder
from uda.schedules import learning_rate_factor
from uda.snapshots import load as load_snapshot
from uda.snapshots import load_weights
from uda.tracking import Tracker, progress_bar
from uda.views import Batch, View
from uda.weight_files import identity


def train_step(run: Run, batch: Batch) -> StepResult:
    """One update of every network; the only place that calls backward().

    Each view that an objective reads is seen by the student once, see `_learn_from`.
    """
    train = run.experiment.train
    # What is drawn from torch's global generator (dropout) follows from (seed, step) alone.
    torch.manual_seed(_step_seed(train.seed, run.step))
    if train.restart is not None and run.step == train.restart.at_step:
        run.forget()
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
        _learn_from(view, readers, run, context, losses)
    for name, objective in active.items():
        with _autocast(run):
            own = objective.after_backward(context)
        _backward({f"loss/{name}/{term}": value for term, value in own.items()}, losses)

    if run.exchange is not None:
        run.exchange()
    _update(run, active)
    for objective in active.values():
        objective.after_step(context)
    run.step += 1
    return StepResult(losses, seen)


def _collect_views(
    run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
) -> list[View]:
    """The step's views in order: source, target, then those of the objectives."""
    views = []
    if len(batch.source_images):
        views.append(View("source", batch.source_images, batch.source_labels))
    if len(batch.target_images):
        labels = batch.target_pseudo_labels
        labels = batch.target_ground_truth if labels is None else labels
        views.append(View("target", batch.target_images, labels))
    for objective in active.values():
        with _autocast(run):
            views += objective.views(batch, context)
    names = [view.name for view in views]
    if len(set(names)) != len(names):
        raise InputError(f"two objectives add a view of the same name: {', '.join(names)}")
    return views


def _learn_from(
    view: View,
    readers: Mapping[str, Objective],
    run: Run,
    context: StepContext,
    losses: dict[str, Tensor],
) -> None:
    """Adds the gradients of what `readers` make of `view`, and the terms to `losses`.

    The student's forward; each reader's terms, back to the student's output, one after the other;
    from there backward through the student. So memory holds the graphs of one view and, beyond the
    student, of one objective at a time.
    """
    with _autocast(run):
        output = run.student(view.images)
    shown = _cut_off(output)
    for name, objective in readers.items():
        with _autocast(run):
            terms = {
                f"loss/{name}/{term}": objective.config.weight * value
                for term, value in objective.terms(view, shown, context).items()
            }
        _backward(terms, losses)
        del terms  # and their graph, before the next one is made
    arrived = [
        (made, end.grad)
        for made, end in zip(output, shown, strict=True)
        if end is not None and end.grad is not None
    ]
    if arrived:
        torch.autograd.backward(*zip(*arrived, strict=True))


def _backward(terms: Mapping[str, Tensor], losses: dict[str, Tensor]) -> None:
    """Adds the gradients of the sum of `terms`, and their values to `losses`."""
    if terms:
        torch.stack(list(terms.values())).sum().backward()
        losses.update({name: value.detach() for name, value in terms.items()})


def _cut_off(output: SegmentationOutput) -> SegmentationOutput:
    """The same values, where the gradients of losses end and are added up."""
    return SegmentationOutput(
        *(None if t is None else t.detach().requires_grad_(t.requires_grad) for t in output)
    )


def _update(run: Run, active: Mapping[str, Objective]) -> None:
    """The optimizers step, each at its own rate, and the teacher follows."""
    for name, optimizer in run.optimizers.items():
        if name == STUDENT or name in active:
            set_learning_rate(optimizer, _learning_rate(run, name))
            optimizer.step()
    start = run.teacher_start
    if run.teacher is not None and start is not None and run.step >= start:
        run.teacher.update(run.student, updates=run.step - start)


def _learning_rate(run: Run, name: str) -> float:
    """The base rate of an optimizer at the step under way; only the student's warms up."""
    train = run.experiment.train
    config = train.optimizer if name == STUDENT else run.objectives[name].optimizer
    assert config is not None
    warmup_steps = train.warmup_steps if name == STUDENT else 0
    factor = learning_rate_factor(
        run.step, steps=train.decay_steps(run.step), warmup_steps=warmup_steps, power=train.power
    )
    return config.lr * factor


def _start_teacher(run: Run) -> None:
    if run.teacher is not None and run.step == run.teacher_start:
        run.teacher.restart(run.student)


def _autocast(run: Run) -> torch.autocast:
    enabled = run.experiment.train.precision == "bfloat16"
    return torch.autocast(run.device.type, torch.bfloat16, enabled=enabled)


def _step_seed(seed: int, step: int) -> int:
    """A number of its own for each step and process; the first one's is that of a lone process."""
    key = (seed, step, rank()) if rank() else (seed, step)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1)


def train(
    experiment: Experiment, path: Path, *, preset: str, device: torch.device, resume: bool = False
) -> Scores:
    """Runs `experiment` to its end in the folder `path` and returns the scores of the last step.

    A preset of 0 steps is only evaluated. With `resume` it goes on from `path/resume.pth` and
    computes, bit for bit on the CPU, what it would have computed without the interruption. Raises
    InputError before anything is written when the experiment, its data or the folder cannot be
    used.
    """
    validate(experiment)
    if device.type == "cpu":
        keep_freed_memory()
    settings = experiment.train
    if settings.steps == 0:
        require(not resume, "train.steps is 0: there is nothing to resume; leave --resume")
        return _evaluate_first_weights(experiment, path, preset=preset, device=device)
    data = open_training_data(
        experiment.data, seed=settings.seed, evaluated=experiment.evaluation.dataset
    )
    validation = open_labeled_split(
        data_root(experiment.data.root),
        experiment.evaluation.dataset,
        experiment.evaluation.split,
        label_space=data.label_space,
    )
    _refuse_overlap(data, validation)
    check_batch_size(settings.batch_size)
    folder = RunFolder(path, preset, to_plain(experiment), data, data.supervision, "")
    if not resume:
        folder.refuse_if_used()
    wait_for_all()  # none has written anything before all have looked
    run, folder = _first_weights(experiment, folder, device=device, resume=resume)
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
        tracker.say(describe(run, folder, validation))
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
            scores = keep_records(run, folder, result, tracker, validation)
        # A run that was complete when it was resumed is only evaluated.
        return scores or evaluate_student(run, data.label_space, validation)


def _evaluate_first_weights(
    experiment: Experiment, path: Path, *, preset: str, device: torch.device
) -> Scores:
    """The scores of a preset that trains nothing, kept in `path/scores.json` with their facts."""
    config, initial = experiment.evaluation, experiment.train.initial_snapshot
    assert initial is not None, "validate() has seen to it that there are weights"
    space = layout_named(config.dataset).label_space
    root = data_root(experiment.data.root)
    validation = open_labeled_split(root, config.dataset, config.split, label_space=space)
    model = replace(experiment.model, backbone_weights="none")  # they would be overwritten
    student = model.build(space.num_classes).to(device)
    student = student.to(memory_format=torch.channels_last)
    snapshot = load_snapshot(Path(initial))
    load_weights(student, snapshot.student, origin=initial)
    facts: dict[str, object] = {
        "preset": preset,
        "snapshot": initial,
        "supervision": snapshot.supervision,
        "protocol": protocol_line(config),
        "images": len(validation),
    }
    print("\n".join(f"{name:<16} {fact}" for name, fact in facts.items()))
    scores = evaluate(
        student,
        validation,
        config=config,
        label_space=space,
        workers=experiment.data.workers,
        progress=partial(progress_bar, total=len(own_share(validation)), description="evaluate"),
    )
    if not is_main():
        return scores
    path.mkdir(parents=True, exist_ok=True)
    text = json.dumps(scores_json(scores, space.report_names, **facts), indent=2)
    (path / "scores.json").write_text(text + "\n")
    return scores


def _refuse_overlap(data: TrainingData, validation: Sequence[Sample]) -> None:
    """No image is scored that was trained on, with labels or without."""
    scored = {sample.name for sample in validation}
    for domain in (data.dataset.source, data.dataset.target):
        both = sorted(scored.intersection(sample.name for sample in domain))
        require(
            not both,
            f"{len(both)} images are both trained on and scored, the first is {both[:1]}: choose "
            "other splits in data.source, data.target or evaluation.split",
        )


def _first_weights(
    experiment: Experiment, folder: RunFolder, *, device: torch.device, resume: bool
) -> tuple[Run, RunFolder]:
    """The run as it has to start, and its folder with where the weights came from."""
    initial = experiment.train.initial_snapshot
    model = experiment.model
    if resume or initial is not None:
        model = replace(model, backbone_weights="none")  # they would be overwritten
    num_classes = folder.data.label_space.num_classes
    run = start_run(replace(experiment, model=model), num_classes=num_classes, device=device)
    if resume:
        resumed = folder.load_resume()
        run.load_state(resumed.state)
        return run, replace(
            folder, supervision=resumed.supervision, initial_weights=resumed.initial_weights
        )
    if initial is None:
        return run, replace(folder, initial_weights=run.student.provenance)
    snapshot = load_snapshot(Path(initial))
    require(
        not snapshot.is_foreign or type(snapshot.model) is type(model),
        f"{initial} holds {snapshot.preset}, a {type(snapshot.model).__name__}, but the network of "
        f"this preset is a {type(model).__name__}: take a preset with that network, such as a "
        "logged_ one",
    )
    load_weights(run.student, snapshot.student, origin=initial)
    supervision = folder.supervision
    if snapshot.supervision != "none":
        supervision += f"; initial weights made with: {snapshot.supervision}"
    taken = [identity(Path(initial))]
    if snapshot.is_foreign:
        auxiliary_head = snapshot.model.has_auxiliary_head
        for objective in run.objectives.values():
            taken.append(objective.restore_beside(Path(initial), auxiliary_head=auxiliary_head))
    initial_weights = "; ".join(filter(None, taken))
    return run, replace(folder, supervision=supervision, initial_weights=initial_weights)
