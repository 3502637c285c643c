"""Optimizers: every figure of a preset reaches torch, and every group moves at its own rate."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import batch_for, tiny_preset, tiny_run
from uda.optim.optimizers import (
    OptimizerConfig,
    ParameterGroup,
    build_optimizer,
    load_state,
    set_learning_rate,
)
from uda.optim.schedules import learning_rate_factor
from uda.training.step import train_step
from uda.utilities.errors import InputError

SGD = OptimizerConfig(name="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
ADAM = OptimizerConfig(name="adam", lr=0.1, weight_decay=0.5)
ADAMW = replace(ADAM, name="adamw")
RADAM = replace(ADAM, name="radam")


def path_of(config: OptimizerConfig, *, updates: int = 3) -> Tensor:
    """Where a weight that starts at (2, -3) is after some steps on f(w) = sum(w ** 2 + w)."""
    weight = nn.Parameter(torch.tensor([2.0, -3.0], dtype=torch.float64))
    optimizer = build_optimizer(config, [{"params": [weight], "lr_factor": 1.0}])
    for _ in range(updates):
        optimizer.zero_grad()
        (weight.square() + weight).sum().backward()
        optimizer.step()
    return weight.detach()


def test_sgd_by_hand() -> None:
    """Two steps from w = 2 on w ** 2 + w: gradient 2 w + 1 + 0.01 w, buffer 0.9 b + gradient."""
    first_gradient = 2 * 2 + 1 + 0.01 * 2
    first = 2 - 0.1 * first_gradient
    buffer = 0.9 * first_gradient + 2 * first + 1 + 0.01 * first
    assert path_of(SGD, updates=2)[0].item() == pytest.approx(first - 0.1 * buffer)


@pytest.mark.parametrize(
    ("config", "other"),
    [
        (SGD, replace(SGD, nesterov=True)),
        (SGD, replace(SGD, momentum=0.5)),
        (SGD, replace(SGD, weight_decay=0.0)),
        (SGD, replace(SGD, lr=0.05)),
        (SGD, ADAM),
        (ADAM, ADAMW),
        (ADAM, RADAM),
        *[
            (config, replace(config, **changed))
            for config in (ADAM, ADAMW)
            for changed in (
                {"betas": (0.5, 0.999)},
                {"betas": (0.9, 0.5)},
                {"weight_decay": 0.0},
                {"lr": 0.05},
            )
        ],
    ],
)
def test_each_option_matters(config: OptimizerConfig, other: OptimizerConfig) -> None:
    assert not torch.allclose(path_of(config), path_of(other), rtol=1e-6)


def test_groups_keep_their_factor() -> None:
    weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
    optimizer = build_optimizer(
        SGD,
        [{"params": weights[:1], "lr_factor": 1.0}, {"params": weights[1:], "lr_factor": 10.0}],
    )
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 1.0])
    set_learning_rate(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.2])


@pytest.mark.parametrize(
    "config",
    [
        replace(SGD, lr=-1.0),
        replace(SGD, weight_decay=-1.0),
        replace(ADAM, betas=(1.5, 0.9)),
    ],
)
def test_values_out_of_range_are_refused(config: OptimizerConfig) -> None:
    with pytest.raises(InputError, match=r"train\.optimizer\."):
        config.check("train.optimizer")


def test_options_of_another_optimizer_are_idle() -> None:
    assert set(SGD.idle()) == {"betas"}
    assert set(replace(SGD, momentum=0.0, nesterov=True).idle()) == {"betas", "nesterov"}
    assert set(ADAM.idle()) == {"momentum", "nesterov"}


def test_schedules_apply_to_each_optimizer_of_a_run(toy_root: Path) -> None:
    """The student's warms up, its heads run at ten times its rate; discriminators only decay."""
    experiment = tiny_preset("aagc_640x360_b2", toy_root, steps=4)
    experiment.train.warmup_steps = 2
    run = tiny_run(experiment)
    batch = batch_for(experiment)
    assert set(run.optimizers) == {"student", "adversarial"}
    for step in range(4):
        train_step(run, batch)
        decay = learning_rate_factor(step, steps=4, power=0.9)
        warm = learning_rate_factor(step, steps=4, warmup_steps=2, power=0.9)
        rates = [group["lr"] for group in run.optimizers["student"].param_groups]
        assert rates == pytest.approx([2e-4 * warm, 2e-3 * warm])
        (rate,) = (group["lr"] for group in run.optimizers["adversarial"].param_groups)
        assert rate == pytest.approx(1e-4 * decay)


def test_an_objective_that_has_not_started_leaves_its_networks_alone(toy_root: Path) -> None:
    experiment = tiny_preset("aagc_640x360_b2", toy_root)
    experiment.objectives["adversarial"].start_step = 1
    run = tiny_run(experiment)
    batch = batch_for(experiment)
    before = [weight.detach().clone() for weight in run.objectives["adversarial"].parameters()]
    train_step(run, batch)
    after = list(run.objectives["adversarial"].parameters())
    assert all(map(torch.equal, before, after))
    train_step(run, batch)
    assert not all(map(torch.equal, before, after))


def moved(toy_root: Path, longest: float | None, exchanged: float = 1.0) -> float:
    """How far plain gradient descent at rate 0.1 moves the student in a step, where the exchange
    between processes would multiply its gradient by `exchanged`."""
    experiment = tiny_preset("gc_640x360_b2_source_only", toy_root)
    experiment.train.precision = "float32"
    experiment.train.optimizer = OptimizerConfig(lr=0.1, momentum=0.0)
    experiment.train.head_lr_factor, experiment.train.warmup_steps = 1.0, 0
    experiment.train.max_grad_norm = longest
    run = tiny_run(experiment)
    run.exchange = lambda: torch._foreach_mul_(run.gradients(), exchanged)  # type: ignore[assignment]
    before = [p.detach().clone() for p in run.student.parameters()]
    train_step(run, batch_for(experiment))
    pairs = zip(before, run.student.parameters(), strict=True)
    return torch.cat([(b - a).flatten() for a, b in pairs]).norm().item()


def test_a_long_gradient_is_scaled_down_and_a_short_one_is_not(toy_root: Path) -> None:
    free = moved(toy_root, None)
    assert free > 0.01
    assert moved(toy_root, 1e6) == free
    assert moved(toy_root, 0.01) == pytest.approx(0.001, rel=1e-3)


def test_what_processes_have_exchanged_is_clipped(toy_root: Path) -> None:
    assert moved(toy_root, 0.01, exchanged=100.0) == pytest.approx(0.001, rel=1e-3)


@pytest.mark.parametrize("config", [SGD, ADAM, ADAMW])
@pytest.mark.parametrize("other", ["gradient", "state"])
def test_an_update_is_the_same_in_whatever_order_its_tensors_are_in_memory(
    config: OptimizerConfig, other: str
) -> None:
    """A fused update goes by places in memory, whatever they hold."""

    def trained(order: torch.memory_format) -> Tensor:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.randn(8, 4, 3, 3).to(memory_format=torch.channels_last))
        group: ParameterGroup = {"params": [weight], "lr_factor": 1.0}
        optimizer = build_optimizer(config, [group])
        for _ in range(3):
            gradient = torch.randn(8, 4, 3, 3)
            kept = order if other == "gradient" else torch.channels_last
            weight.grad = gradient.to(memory_format=kept)
            optimizer.step()
            state = optimizer.state[weight]
            for entry, value in state.items():
                if other == "state" and value.dim() == 4:
                    state[entry] = value.to(memory_format=order)
        return weight.detach()

    assert torch.equal(trained(torch.channels_last), trained(torch.contiguous_format))


def test_a_state_that_was_not_updated_in_one_pass_is_restored() -> None:
    """As files of earlier versions have it, and those of a GPU."""
    weight = nn.Parameter(torch.ones(3))
    group: ParameterGroup = {"params": [weight], "lr_factor": 1.0}
    optimizer = build_optimizer(SGD, [group])
    assert optimizer.param_groups[0]["fused"] is True
    weight.grad = torch.ones(3)
    optimizer.step()
    state = optimizer.state_dict()
    for stored in state["param_groups"]:
        stored["fused"] = None
    load_state(optimizer, state, origin="resume.pth")
    assert optimizer.param_groups[0]["fused"] is True
