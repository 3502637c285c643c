"""Information maximization: values by hand, the prior of the first predictions, what is kept."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from factories import ColorSegmenter
from tiny_runs import assert_same, batch_for, flat, random_batch, tiny_preset, tiny_run
from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.information_maximization import (
    InformationMaximization,
    InformationMaximizationConfig,
)
from uda.training.step import train_step
from uda.utilities.errors import InputError

CONTEXT = StepContext(step=0, seed=0, indices=(0,))
VIEW = View("target", torch.zeros(1, 3, 1, 2))
SHOT = InformationMaximizationConfig(diversity=1.0, diversity_rule="entropy")


def said(*pixels: tuple[float, ...]) -> SegmentationOutput:
    """Pixels in a row with these probabilities."""
    logits = torch.tensor(pixels).log().T[None, :, None].clone()
    return SegmentationOutput(logits.requires_grad_(), None, torch.zeros(1, 1, 1, 1))


def values(objective: InformationMaximization, *pixels: tuple[float, ...]) -> dict[str, float]:
    made = objective.terms(VIEW, said(*pixels), CONTEXT)
    return {name: value.item() for name, value in made.items()}


@pytest.mark.parametrize(
    ("pixels", "mean_entropy", "entropy_of_mean"),
    [
        (((0.9, 0.1), (0.8, 0.2)), 0.412743, 0.422709),
        (((0.9, 0.1), (0.1, 0.9)), 0.325083, 0.693147),
    ],
)
def test_shots_loss_by_hand(
    pixels: tuple[tuple[float, ...], ...], mean_entropy: float, entropy_of_mean: float
) -> None:
    made = values(SHOT.build(2), *pixels)
    expected = {"entropy": mean_entropy, "diversity": -entropy_of_mean}
    assert made == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("prior", 0.15 * math.log(0.15 / 0.5) + 0.85 * math.log(0.85 / 0.5)),
        ("hinge", 0.25 * math.log(0.25 / 0.15)),  # 0.85 is above half of its prior
    ],
)
def test_distances_from_the_prior_by_hand(rule: str, expected: float) -> None:
    config = InformationMaximizationConfig(diversity=0.1, diversity_rule=rule)  # type: ignore[arg-type]
    made = values(config.build(2), (0.1, 0.9), (0.2, 0.8))
    assert made["diversity"] == pytest.approx(0.1 * expected, abs=1e-6)


def test_at_the_prior_nothing_pulls() -> None:
    for rule in ("prior", "hinge"):
        config = InformationMaximizationConfig(diversity_rule=rule)
        objective, output = config.build(2), said((0.9, 0.1), (0.3, 0.7))
        objective.prior = torch.tensor([0.6, 0.4])
        diversity = objective.terms(VIEW, output, CONTEXT)["diversity"]
        assert diversity.item() == pytest.approx(0, abs=1e-6)


def test_the_entropy_alone_where_diversity_is_0() -> None:
    config = InformationMaximizationConfig(diversity=0.0)
    assert list(values(config.build(2), (0.9, 0.1))) == ["entropy"]
    assert config.first_batches() == 0
    assert set(config.idle()) == {"diversity_rule", "prior_batches", "momentum"}


def test_the_mean_follows_earlier_steps_and_the_gradient_the_present_one() -> None:
    config = InformationMaximizationConfig(diversity=1.0, diversity_rule="entropy", momentum=0.5)
    objective = config.build(2)
    assert values(objective, (0.9, 0.1))["diversity"] == pytest.approx(-0.325083, abs=1e-6)
    output = said((0.1, 0.9))
    diversity = objective.terms(VIEW, output, CONTEXT)["diversity"]
    assert diversity.item() == pytest.approx(-math.log(2), abs=1e-6)  # (0.9 + 0.1) / 2
    diversity.backward()
    assert output.logits.grad is not None
    # d(sum m log m)/dm is the same for both classes, so that no logit is pulled.
    assert output.logits.grad.abs().max() < 1e-6
    assert objective.before.tolist() == pytest.approx([0.5, 0.5])


def test_no_gradient_breaks_where_a_class_has_no_probability() -> None:
    for rule in ("prior", "hinge", "entropy"):
        config = InformationMaximizationConfig(diversity=1.0, diversity_rule=rule)
        objective = config.build(2)
        logits = torch.tensor([200.0, -200.0]).view(1, 2, 1, 1).requires_grad_()
        output = SegmentationOutput(logits, None, logits)
        torch.stack([*objective.terms(VIEW, output, CONTEXT).values()]).sum().backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all(), rule


def test_the_prior_is_what_the_network_predicts_before_the_first_step() -> None:
    network = ColorSegmenter()
    images = [torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    classes = network(images[0]).logits.shape[1]
    objective = InformationMaximizationConfig().build(classes)
    one = random_batch(source=False)
    batches = [replace(one, target_images=target) for target in images]
    objective.before_first_step(network, batches)
    expected = torch.stack([network(i).logits.softmax(1).mean((0, 2, 3)) for i in images]).mean(0)
    torch.testing.assert_close(objective.prior, expected)
    assert objective.prior.sum().item() == pytest.approx(1, abs=1e-5)


def test_a_resumed_run_goes_on_with_the_same_bits(toy_root: Path) -> None:
    experiment = tiny_preset("toy_source_only", toy_root)
    experiment.data.source, experiment.data.target = None, experiment.data.source
    settings = InformationMaximizationConfig(momentum=0.9)
    experiment.objectives = {"information_maximization": settings}
    whole, resumed = tiny_run(experiment), tiny_run(experiment)
    ours = whole.objectives["information_maximization"]
    assert isinstance(ours, InformationMaximization)
    ours.prior.copy_(torch.rand(19).softmax(0))
    for _ in range(2):
        train_step(whole, batch_for(experiment))
    resumed.load_state(copy.deepcopy(whole.state()))
    batch = batch_for(experiment)
    for run in (whole, resumed):
        train_step(run, batch)
    assert_same(flat(whole.state()), flat(resumed.state()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"diversity": -0.1}, "diversity is -0.1"), ({"momentum": 1.0}, "momentum is 1.0"),
     ({"prior_batches": 0}, "prior_batches is 0")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    config = InformationMaximizationConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=rf"objectives\.im\.{message}"):
        config.check("objectives.im")
