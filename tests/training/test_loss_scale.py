"""float16: losses are scaled, and gradients that overflow by it lower the scale, no more."""

import math
from pathlib import Path

import pytest
import torch

from interruptions import run_to_end
from tiny_runs import assert_same, interrupt, steps, tiny_preset, tiny_run
from uda.checkpoints.snapshots import read
from uda.experiment import Experiment
from uda.optim.loss_scale import LossScale
from uda.training.run import Run
from uda.utilities.errors import InputError


def in_half_precision(root: Path, name: str = "toy_class_mix") -> Experiment:
    experiment = tiny_preset(name, root, steps=4)
    experiment.train.precision = "float16"
    return experiment


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """float16 is slow on a CPU: forward passes in float32, and all else as it is."""
    for module in ("learning", "step"):
        off = torch.autocast("cpu", enabled=False)
        monkeypatch.setattr(f"uda.training.{module}.autocast", lambda run, off=off: off)


def with_scale(experiment: Experiment, value: float) -> Run:
    run = tiny_run(experiment)
    assert run.loss_scale is not None
    run.loss_scale.value = value
    return run


def weights(run: Run) -> list[torch.Tensor]:
    return [p.detach().clone() for network in run.networks() for p in network.parameters()]


def test_the_scale_follows_gradients_as_that_of_torch() -> None:
    """Overflows at once, after a while, and after the scale was raised."""
    ours, theirs = LossScale(), torch.amp.GradScaler("cpu")
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    for step in range(6100):
        finite = step not in (0, 1, 2500, 5000)
        gradient = torch.tensor([3.0, 1.0 if finite else math.inf])
        scaled = gradient * ours.value
        parameter.grad = scaled.clone()
        theirs.scale(torch.zeros(()))  # begins lazily
        theirs.step(optimizer)
        theirs.update()
        ours.unscale([scaled])
        if finite:
            assert torch.equal(scaled, gradient)
            ours.count_finite()
        else:
            assert ours.lower()
        assert ours.value == theirs.get_scale()


@pytest.mark.parametrize("name", ["toy_class_mix", "toy_aagc_student"])
def test_the_scale_does_not_show_in_the_update(name: str, toy_root: Path) -> None:
    """In float32, where a power of two is exact: every objective's gradients are divided by it,
    those of its own networks, too."""
    experiment = tiny_preset(name, toy_root, steps=4)
    experiment.train.precision = "float32"
    experiment.train.max_grad_norm = 1.0
    plain, scaled = tiny_run(experiment), tiny_run(experiment)
    scaled.loss_scale = LossScale()
    losses = [[result.losses for result in steps(run, 2)] for run in (plain, scaled)]
    assert_same(losses[0], losses[1])
    assert_same(plain.student.state_dict(), scaled.student.state_dict())
    assert_same(*({n: o.state_dict() for n, o in r.objectives.items()} for r in (plain, scaled)))


def test_an_overflow_lowers_the_scale_and_moves_no_weight(toy_root: Path) -> None:
    experiment = in_half_precision(toy_root)
    experiment.train.skip_nonfinite = 1
    run = with_scale(experiment, 2.0**60)
    before = weights(run)
    (result,) = steps(run, 1)
    assert (run.step, run.skipped, result.skipped) == (1, 0, False)
    assert all(value.isfinite() for value in result.losses.values())
    assert run.loss_scale is not None
    assert run.loss_scale.value == 2.0**59
    assert_same(weights(run), before)
    run.loss_scale.value = 64.0
    steps(run, 1)
    assert run.loss_scale.value == 64
    assert any(not torch.equal(a, b) for a, b in zip(weights(run), before, strict=True))


@pytest.mark.usefixtures("fast")
def test_gradients_that_no_scale_makes_finite_are_a_fault(toy_root: Path) -> None:
    experiment = in_half_precision(toy_root, "gc_640x360_b2_source_only")
    run = with_scale(experiment, 2.0)
    next(run.student.parameters()).register_hook(lambda gradient: gradient * math.nan)
    before = weights(run)
    first, second = steps(run, 2)
    assert (first.skipped, second.skipped, run.skipped) == (False, True, 1)
    assert_same(weights(run), before)


@pytest.mark.usefixtures("fast")
def test_a_resumed_run_has_the_scale_that_it_had(toy_root: Path, tmp_path: Path) -> None:
    experiment = in_half_precision(toy_root, "gc_640x360_b2_source_only")
    experiment.train.resume_every = 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("uda.optim.loss_scale._FIRST", 2.0**140)  # too large: it is lowered
        run_to_end(experiment, tmp_path / "straight")
        interrupt(experiment, tmp_path / "resumed", at=3)
    run_to_end(experiment, tmp_path / "resumed", resume=True)
    ends = [read(tmp_path / name / "resume.pth") for name in ("straight", "resumed")]
    assert ends[0]["training"]["loss_scale"]["value"] < 2.0**140
    assert_same(*ends)
    run = tiny_run(experiment)
    state = run.state() | {"loss_scale": None}
    with pytest.raises(InputError, match="has no state of the loss scale"):
        run.load_state(state)
