"""One step: a student forward per view, and one update of every network."""

from collections.abc import Iterable, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from uda.data.batch import Batch, View
from uda.objectives.base import Objective, StepContext
from uda.objectives.counts import StepCounts
from uda.optim.optimizers import set_learning_rate
from uda.optim.schedules import cosine_restarts_factor, learning_rate_factor
from uda.training.learning import Learning, autocast
from uda.training.nonfinite import is_finite
from uda.training.run import STUDENT, Run, StepResult
from uda.utilities.distributed import rank
from uda.utilities.errors import require
from uda.utilities.tensor_values import norm


def train_step(run: Run, batch: Batch) -> StepResult:
    """One update of every network; the only place that calls backward().

    The student is applied once to each view that an objective reads, see `Learning`.
    """
    train = run.experiment.train
    # What torch's global generator samples (dropout) depends on (seed, step) only.
    torch.manual_seed(_step_seed(train.seed, run.step))
    if train.restart is not None and run.step == train.restart.at_step:
        run.forget()
    batch = batch.to_device(run.device)
    active = {n: o for n, o in run.objectives.items() if run.step >= o.config.start_step}
    counts = _step_counts(run, active)
    context = StepContext(
        run.step, train.seed, batch.indices, run.teacher, counts, batch.target_images
    )
    _start_teacher(run)
    run.student.train()
    buffers = _copies_of_buffers(run) if train.skip_nonfinite else None
    for optimizer in run.optimizers.values():
        optimizer.zero_grad(set_to_none=True)

    learning = Learning(run, active, context)
    for view in _collect_views(run, active, batch, context):
        learning.learn_from(view)
    _count_domains(run, batch, counts)
    for name, objective in active.items():
        learning.learn(name, partial(objective.after_backward, context), networks=objective)
    losses = learning.losses

    if run.exchange is not None:
        run.exchange()
    updated, skipped, unseen = _verdict(run, losses)
    if updated:
        _update(run, active)
        if run.plateau is not None and run.step < train.plateau_end:
            run.plateau.add(_on_fixed_labels(losses, active))
    for objective in active.values():
        objective.after_step(context)
    if skipped:
        for buffer, copy in buffers or ():
            buffer.copy_(copy)
        run.skipped += 1
    run.step += 1
    return StepResult(
        losses,
        learning.views,
        counts=counts.by_name,
        skipped=skipped,
        gradient_norm=unseen,
    )


def _verdict(run: Run, losses: Mapping[str, Tensor]) -> tuple[bool, bool, Tensor | None]:
    """Whether the weights are to be updated, whether the step is to be reported as skipped, and the
    norm of the gradients where it is to be looked at later.

    Gradients are divided by the scale of losses. If they overflowed only because of it, there is
    neither an update nor a fault: the scale is lowered.
    """
    scale = run.loss_scale
    if scale is not None:
        scale.unscale(run.gradients())
    elif not run.experiment.train.skip_nonfinite:  # a look would wait for the device
        return True, False, norm(run.gradients())
    if is_finite(losses, run.gradients()):
        if scale is not None:
            scale.count_finite()
        return True, False, None
    overflowed = scale is not None and is_finite(losses, ()) and scale.lower()
    return False, not overflowed, None


def _on_fixed_labels(losses: Mapping[str, Tensor], active: Mapping[str, Objective]) -> list[Tensor]:
    """The terms of the objectives whose labels do not change during the run."""
    fixed = tuple(f"loss/{n}/" for n, o in active.items() if o.config.learns_fixed_labels())
    return [value for name, value in losses.items() if name.startswith(fixed)]


def _copies_of_buffers(run: Run) -> list[tuple[Tensor, Tensor]]:
    """Every buffer, such as the statistics of batch norm, and a copy of it."""
    return [(buffer, buffer.clone()) for network in run.networks() for buffer in network.buffers()]


def _step_counts(run: Run, active: Mapping[str, Objective]) -> StepCounts:
    """Those of the current step, which are counted only if it will be logged."""
    train = run.experiment.train
    if not train.is_due(run.step + 1, train.log_every):
        return StepCounts()
    names: dict[nn.Module, str] = {objective: name for name, objective in active.items()}
    return StepCounts(names, num_classes=run.num_classes)


def _count_domains(run: Run, batch: Batch, counts: StepCounts) -> None:
    """Counts the source's labels and the student's predictions on the plain target images. If no
    objective reads these, this takes one more forward pass, in evaluation mode."""
    if not counts.active:
        return
    counts.source(batch.source_labels)
    if len(batch.target_images) and "predicted/target" not in counts.by_name:
        run.student.eval()
        with torch.no_grad(), autocast(run):
            counts.student("target", run.student(batch.target_images).logits)
        run.student.train()
    if "predicted/target" in counts.by_name:  # predictions on the source are not needed
        counts.by_name.pop("predicted/source", None)


def _collect_views(
    run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
) -> list[View]:
    """The step's views in order: source, target, then those of the objectives.

    Raises InputError, naming the objective, when it adds a view that it does not declare, or reads
    a view that the step does not have.
    """
    views = {}
    if len(batch.source_images):
        views["source"] = View("source", batch.source_images, batch.source_labels)
    if len(batch.target_images):
        labels = batch.target_pseudo_labels
        labels = batch.target_ground_truth if labels is None else labels
        views["target"] = View("target", batch.target_images, labels)
    for name, objective in active.items():
        with autocast(run):
            added = objective.views(batch, context)
        declared = objective.config.adds()
        for view in added:
            require(
                view.name in declared,
                f"objective {name!r} adds the view {view.name!r}, but adds() of its config names "
                f"{_names(declared)}: let it name every view that views() may return",
            )
            require(
                view.name not in views,
                f"objective {name!r} adds a view of the name {view.name!r}, which another view of "
                "this step has: give it a name of its own, or remove one of the objectives",
            )
            views[view.name] = view
    for name, objective in active.items():
        absent = (objective.reads | objective.joint) - views.keys()
        require(
            not absent,
            f"objective {name!r} reads {_names(absent)}, but the views of step {run.step} are "
            f"{_names(views)}",
        )
    return list(views.values())


def _names(views: Iterable[str]) -> str:
    return ", ".join(map(repr, sorted(views))) or "none"


def _update(run: Run, active: Mapping[str, Objective]) -> None:
    """Updates the networks, each at its own learning rate, and then the teacher."""
    longest = run.experiment.train.max_grad_norm
    if longest is not None:
        nn.utils.clip_grad_norm_(run.student.parameters(), longest)
    for name, optimizer in run.optimizers.items():
        if name == STUDENT or name in active:
            set_learning_rate(optimizer, _learning_rate(run, name))
            optimizer.step()
    start = run.teacher_start
    if run.teacher is not None and start is not None and run.step >= start:
        run.teacher.update(run.student, updates=run.step - start)


def _learning_rate(run: Run, name: str) -> float:
    """The learning rate of an optimizer in this step; only the student's warms up."""
    train = run.experiment.train
    config = train.optimizer if name == STUDENT else run.objectives[name].optimizer
    assert config is not None
    cosine = train.cosine_restarts
    if cosine is not None and run.step >= cosine.from_step:
        return config.lr * cosine_restarts_factor(run.step - cosine.from_step, cosine)
    if run.plateau is not None:
        return config.lr * run.plateau.factor
    warmup_steps = train.warmup_steps if name == STUDENT else 0
    factor = learning_rate_factor(
        run.step,
        steps=train.decay_steps(run.step),
        warmup_steps=warmup_steps,
        warmup_start=train.warmup_start,
        warmup=train.warmup,
        power=train.power,
        final=train.final_lr_factor,
    )
    return config.lr * factor


def _start_teacher(run: Run) -> None:
    if run.teacher is not None and run.step == run.teacher_start:
        run.teacher.restart(run.student)


def _step_seed(seed: int, step: int) -> int:
    """A seed for each step and process; that of process 0 is the same as with one process."""
    key = (seed, step, rank()) if rank() else (seed, step)
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0]) >> 1
