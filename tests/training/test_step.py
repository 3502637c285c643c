"""One step: each view is read once, and its gradients add up."""

from pathlib import Path

import pytest
import torch

from tiny_runs import (
    CPU,
    random_batch,
    tiny_preset,
    tiny_run,
)
from uda.objectives.base import StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.training.run import start_run
from uda.training.step import _collect_views, train_step
from uda.utilities.errors import InputError


def test_two_views_of_one_name_are_refused(toy_root: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.objectives["class_mix"].start_step = 0
    experiment.objectives["again"] = ClassMixConfig()
    with pytest.raises(InputError, match="objective 'again' adds a view of the name 'class_mix'"):
        train_step(tiny_run(experiment), random_batch())


def test_each_view_is_seen_once_and_only_if_an_objective_reads_it(toy_root: Path) -> None:
    experiment = tiny_preset("gc_640x360_b2_class_mix", toy_root)
    experiment.objectives["class_mix"].start_step = 1
    experiment.train.log_every = 3
    run = tiny_run(experiment)
    seen = []
    run.student.register_forward_hook(lambda *_: seen.append(1))
    first, second = (train_step(run, random_batch()) for _ in range(2))
    assert [view.name for view in first.views] == ["source"]
    assert [view.name for view in second.views] == ["source", "class_mix"]
    assert len(seen) == 3
    train_step(run, random_batch())
    assert len(seen) == 6, "a step that is logged predicts the plain target images, too"


def test_gradients_of_views_add_up(toy_root: Path) -> None:
    """One view at a time, or all terms in one backward: the same gradient up to rounding."""
    experiment = tiny_preset("aagc_640x360_b2", toy_root)
    experiment.train.precision = "float32"
    experiment.model.dropout = 0.0
    experiment.model.batch_norm = "frozen"
    experiment.objectives = {
        "supervised": experiment.objectives["supervised"],
        "memory": MemoryRegularizationConfig(weight=1.0),
    }
    run = tiny_run(experiment)
    batch = random_batch()
    other = start_run(experiment, num_classes=19, device=CPU)
    train_step(run, batch)
    moved = batch.to_device(CPU)
    context = StepContext(0, 0, batch.indices)
    total = torch.zeros(())
    for view in _collect_views(other, {}, moved, context):
        output = other.student.train()(view.images)
        for objective in other.objectives.values():
            if view.name in objective.reads:
                terms = objective.terms(view, output, context).values()
                total = total + objective.config.weight * torch.stack(list(terms)).sum()
    total.backward()
    for (name, ours), theirs in zip(
        run.student.named_parameters(), other.student.parameters(), strict=True
    ):
        if ours.grad is not None:
            assert theirs.grad is not None
            assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6), name


def test_a_domain_without_target_reads_none(toy_root: Path) -> None:
    experiment = tiny_preset("gc_640x360_b2_source_only", toy_root)
    assert experiment.data.target is None
    result = train_step(tiny_run(experiment), random_batch(target=False))
    assert [view.name for view in result.views] == ["source"]
