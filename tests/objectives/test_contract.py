"""What every objective owes the engine, over all presets: new ones join by themselves."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tiny_runs import (
    COVERING_STEPS,
    CPU,
    DISTINCT_STEPS,
    assert_same,
    batch_for,
    batch_tensors,
    flat,
    slow_unless,
    tiny_preset,
    tiny_run,
    without_dropout,
)
from uda.data.batch import Batch, View
from uda.objectives.base import Objective, ObjectiveConfig, StepContext
from uda.training.run import Run
from uda.training.step import train_step

aten = torch.ops.aten


def run_of(preset: str, toy_root: Path) -> Run:
    """A run of the preset in which every objective takes part from the first step."""
    experiment = without_dropout(tiny_preset(preset, toy_root))
    for objective in experiment.objectives.values():
        objective.start_step = 0
    return tiny_run(experiment)


class ReadingBack(TorchDispatchMode):
    """Notes operations for which a host has to wait for its GPU: those that give it a number, or
    tensors as large as the values say. What is drawn lies on the host, and may be read."""

    numbers = (aten._local_scalar_dense, aten.is_nonzero, aten.equal)
    sizes = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim, aten.bincount)
    masks = (aten.index, aten.index_put, aten.index_put_)

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._drawn: list[Tensor] = []

    def __torch_dispatch__(
        self,
        func: OpOverload,
        types: tuple[type, ...],
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        kind = func.overloadpacket
        tensors = [a for a in tree_leaves((args, kwargs)) if isinstance(a, Tensor)]
        drawn = bool(tensors) and all(any(t is d for d in self._drawn) for t in tensors)
        by_mask = kind in self.masks and any(t.dtype == torch.bool for t in tensors[1:])
        if (kind in self.numbers + self.sizes or by_mask) and not drawn:
            self.found.append(str(func))
        result = func(*args, **(kwargs or {}))
        if drawn or (kwargs or {}).get("generator") is not None:
            self._drawn += [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        return result


@pytest.fixture(params=[slow_unless(name, COVERING_STEPS) for name in DISTINCT_STEPS])
def run(request: pytest.FixtureRequest, toy_root: Path) -> Run:
    return run_of(request.param, toy_root)


def test_a_step_reads_nothing_back(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses are read when they are logged; a step that is not logged waits for nothing."""
    # Optimizers count their steps on the host, in tensors of its own.
    monkeypatch.setattr("uda.training.step._update", lambda *_: None)
    run.experiment.train.log_every = 1000
    batch = batch_for(run.experiment)
    with ReadingBack() as reading:
        train_step(run, batch)
    assert reading.found == []


def test_what_reads_back_is_noted() -> None:
    values = torch.arange(4.0)
    with ReadingBack() as reading:
        values.max().item()
        values[values > 1]
        values[values > 1] = torch.ones(2)
        torch.rand(2, generator=torch.Generator())[0].item()
        torch.where(values > 1, 0, values)
    assert [name.split(".")[1] for name in reading.found] == [
        "_local_scalar_dense", "index", "index_put_"
    ]  # fmt: skip


def test_one_step(run: Run) -> None:
    batch = batch_for(run.experiment)
    before = batch_tensors(batch)
    result = train_step(run, batch)

    assert run.step == 1
    assert result.losses
    owners = {name.split("/")[1] for name in result.losses}
    assert owners == set(run.objectives), "every objective has a term of its own"
    for name, value in result.losses.items():
        assert name.split("/")[0] == "loss"
        assert len(name.split("/")) == 3, "loss/<objective>/<term>"
        assert value.shape == ()
        assert not value.requires_grad
        assert math.isfinite(value.item()), name

    hidden = any(view.hide_tokens is not None for view in result.views)
    for name, weight in run.student.named_parameters():
        if name.endswith("mask_token") and not hidden:
            assert weight.grad is None
        elif weight.requires_grad:
            assert weight.grad is not None, f"no gradient reached student.{name}"
            assert weight.grad.isfinite().all(), f"student.{name}"
        else:
            assert weight.grad is None
    for name, weight in networks_of(run).items():
        if not weight.requires_grad:
            assert weight.grad is None
            continue
        assert weight.grad is not None, f"no gradient reached {name}"
    if run.teacher is not None:
        assert all(weight.grad is None for weight in run.teacher.parameters())
    assert_same(batch_tensors(batch), before)


def networks_of(run: Run) -> dict[str, torch.nn.Parameter]:
    """The parameters of the objectives' own networks."""
    return {
        f"{name}.{own}": weight
        for name, objective in run.objectives.items()
        for own, weight in objective.named_parameters()
    }


def test_every_trained_parameter_is_in_one_optimizer(run: Run) -> None:
    held = [
        id(weight)
        for optimizer in run.optimizers.values()
        for group in optimizer.param_groups
        for weight in group["params"]
    ]
    trained = [id(w) for w in run.student.parameters() if w.requires_grad]
    trained += [id(w) for w in networks_of(run).values() if w.requires_grad]
    assert len(held) == len(set(held))
    assert sorted(held) == sorted(trained)


def test_objectives_change_nothing_they_are_given(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the batch on the device, nor views, nor what the student said."""
    given: dict[str, tuple[Tensor, Tensor]] = {}

    def keep(name: str, tensor: Tensor | None) -> None:
        if tensor is not None:
            given[name] = tensor, tensor.detach().clone()

    to_device = Batch.to_device

    def watched_batch(batch: Batch, device: torch.device) -> Batch:
        moved = to_device(batch, device)
        for name in batch_tensors(moved):
            keep(f"batch.{name}", getattr(moved, name))
        return moved

    monkeypatch.setattr(Batch, "to_device", watched_batch)
    for name, objective in run.objectives.items():
        terms = objective.terms

        def watched_terms(
            view: View,
            output: object,
            context: StepContext,
            *,
            name: str = name,
            terms: object = terms,
        ) -> dict[str, Tensor]:
            for field in ("images", "labels", "weights"):
                keep(f"{name} {view.name}.{field}", getattr(view, field))
            for field in ("logits", "auxiliary_logits", "features"):
                keep(f"{name} {view.name} output.{field}", getattr(output, field))
            assert callable(terms)
            found: dict[str, Tensor] = terms(view, output, context)
            return found

        monkeypatch.setattr(objective, "terms", watched_terms)
    train_step(run, batch_for(run.experiment))
    assert len(given) > 2
    for name, (tensor, before) in given.items():
        assert torch.equal(tensor.detach(), before), f"{name} was changed in place"


def test_objectives_draw_from_no_global_generator(run: Run) -> None:
    batch = batch_for(run.experiment).to_device(CPU)
    context = StepContext(0, run.experiment.train.seed, batch.indices, run.teacher)
    before = torch.get_rng_state()
    views = []
    if len(batch.source_images):
        views.append(View("source", batch.source_images, batch.source_labels))
    if len(batch.target_images):
        labels = batch.target_pseudo_labels
        labels = batch.target_ground_truth if labels is None else labels
        views.append(View("target", batch.target_images, labels))
    for objective in run.objectives.values():
        views += objective.views(batch, context)
    for view in views:
        with torch.random.fork_rng(devices=[]):  # students may draw: drop path, HRDA's details
            output = run.student(view.images)
        for objective in run.objectives.values():
            if view.name in objective.reads:
                objective.terms(view, output, context)
    for objective in run.objectives.values():
        objective.after_backward(context)
        objective.after_step(context)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.slow
def test_state_reloads_into_a_new_run(run: Run) -> None:
    batch = batch_for(run.experiment)
    train_step(run, batch)
    other = tiny_run(run.experiment)
    other.load_state(copy.deepcopy(run.state()))  # as a file would part them
    assert other.step == 1
    assert_same(other.state(), run.state())
    for each in (run, other):
        train_step(each, batch)
    assert_same(other.state(), run.state())


def test_what_a_sample_draws_depends_on_neither_its_place_nor_the_others(toy_root: Path) -> None:
    context = StepContext(step=3, seed=1, indices=(4, 7, 9))
    alone = StepContext(step=8, seed=1, indices=(7,))
    numbers = [torch.rand(3, generator=g) for g in context.generators("mix")]
    (number,) = (torch.rand(3, generator=g) for g in alone.generators("mix"))
    assert torch.equal(numbers[1], number)
    others = [
        torch.rand(3, generator=StepContext(3, seed, (index,)).generators(purpose)[0])
        for seed, index, purpose in ((1, 4, "mix"), (2, 7, "mix"), (1, 7, "jitter"))
    ]
    assert not any(torch.equal(other, number) for other in others)


def test_weight_scales_every_term_and_start_step_is_respected(toy_root: Path) -> None:
    """The objective of weight 3 says three times what it says at weight 1, from its step on."""
    for preset, name in (("aagc_640x360_b2", "memory"), ("gc_640x360_b2_cut_mix", "cut_mix")):
        values = []
        for weight in (1.0, 3.0):
            experiment = without_dropout(tiny_preset(preset, toy_root))
            experiment.objectives[name].weight = weight
            experiment.objectives[name].start_step = 1
            # The student stands still, so that the steps differ in nothing else.
            experiment.train.optimizer.lr = 1e-30
            run = tiny_run(experiment)
            batch = batch_for(experiment)
            first, second = train_step(run, batch), train_step(run, batch)
            assert not [term for term in first.losses if f"/{name}/" in term]
            values.append({t: v.item() for t, v in second.losses.items() if f"/{name}/" in t})
        assert values[0]
        for term, value in values[0].items():
            assert values[1][term] == pytest.approx(3 * value, rel=1e-3)


def test_base_objective_does_nothing() -> None:
    objective = Objective(ObjectiveConfig())
    context = StepContext(0, 0, ())
    assert objective.joint_terms({}, context) == {}
    assert objective.after_backward(context) == {}
    assert flat(objective.state_dict()) == {}
