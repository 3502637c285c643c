"""Entropy: whose, in which unit, at which resolution, and that minimizing it makes sure."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from networks import small_network
from uda.data.batch import View
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.entropy import EntropyConfig
from uda.utilities.errors import InputError

CONTEXT = StepContext(step=0, seed=0, indices=(0,))
VIEW = View("target", torch.zeros(1, 3, 1, 2))
LOG_2, LOG_3 = math.log(2), math.log(3)


def output() -> SegmentationOutput:
    """The main head says (1, 1) / 2 and (1, 3) / 4; both heads together (1, 3) / 4 twice."""
    main = torch.tensor([[0, 0], [0, LOG_3]]).view(1, 2, 1, 2)
    auxiliary = torch.tensor([[0, 0], [2 * LOG_3, 0]]).view(1, 2, 1, 2)
    return SegmentationOutput(
        main.requires_grad_(), auxiliary.requires_grad_(), torch.zeros(1, 1, 1, 1)
    )


QUARTER = 2 * LOG_2 - 0.75 * LOG_3  # nats, of (1, 3) / 4; its certainty is 10 / 16


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (EntropyConfig(), (LOG_2 + QUARTER) / 2),
        (EntropyConfig(certainty=True), (0.5 * LOG_2 + 0.625 * QUARTER) / 2),
        (EntropyConfig(heads="fused"), QUARTER),
        (EntropyConfig(heads="fused", certainty=True), 0.625 * QUARTER),
    ],
)
def test_values_by_hand(config: EntropyConfig, expected: float) -> None:
    terms = config.build(2).terms(VIEW, output(), CONTEXT)
    assert list(terms) == ["entropy"]
    assert terms["entropy"].item() == pytest.approx(expected)


@pytest.mark.parametrize("heads", ["main", "fused"])
@pytest.mark.parametrize("certainty", [False, True])
def test_a_gradient_step_makes_predictions_surer(heads: str, certainty: bool) -> None:
    config = EntropyConfig(heads=heads, certainty=certainty)  # type: ignore[arg-type]
    objective, said = config.build(2), output()
    before = objective.terms(VIEW, said, CONTEXT)["entropy"]
    before.backward()
    assert said.logits.grad is not None
    moved = said.replace(logits=(said.logits - said.logits.grad).detach())
    sure = EntropyConfig(heads=heads).build(2)  # type: ignore[arg-type]
    assert sure.terms(VIEW, moved, CONTEXT)["entropy"] < sure.terms(VIEW, said, CONTEXT)["entropy"]
    assert said.auxiliary_logits is not None
    assert (said.auxiliary_logits.grad is not None) == (heads == "fused")


def test_the_main_head_alone_needs_no_other() -> None:
    assert EntropyConfig().weight == 0.001
    assert EntropyConfig().needs() == {"target"}
    assert EntropyConfig(heads="fused").needs() == {"target", "auxiliary_head"}
    objective = EntropyConfig().build(2)
    assert objective.reads == {"target"}
    assert objective.terms(VIEW, output().replace(auxiliary_logits=None), CONTEXT)


# --- as ADVENT and FDA have it


def said(*probabilities: float, classes: int | None = None) -> SegmentationOutput:
    """Both heads give one pixel these probabilities; the other classes have none."""
    logits = torch.full((1, classes or len(probabilities), 1, 1), -200.0)
    logits[0, : len(probabilities), 0, 0] = torch.tensor(probabilities).log().clamp(min=-200)
    auxiliary = logits.flip(1).clone()  # in the opposite order: of the same entropy
    return SegmentationOutput(
        logits.requires_grad_(), auxiliary.requires_grad_(), torch.zeros(1, 1, 1, 1)
    )


def terms(config: EntropyConfig, output: SegmentationOutput) -> dict[str, float]:
    made = config.build(output.logits.shape[1]).terms(VIEW, output, CONTEXT)
    return {name: value.item() for name, value in made.items()}


@pytest.mark.parametrize(
    ("probabilities", "share"),
    [((0.7, 0.2, 0.1), 0.729847), ((0.5, 0.5, 0.0), 0.630930), ((1 / 3,) * 3, 1), ((1, 0, 0), 0)],
)
def test_shares_by_hand(probabilities: tuple[float, ...], share: float) -> None:
    output = said(*probabilities)
    assert terms(EntropyConfig(unit="share"), output) == {"entropy": pytest.approx(share, abs=1e-6)}
    nats = terms(EntropyConfig(), output)["entropy"]
    assert nats == pytest.approx(share * LOG_3, abs=1e-6)


def test_the_gradient_by_hand() -> None:
    output = said(0.7, 0.2, 0.1)
    EntropyConfig().build(3).terms(VIEW, output, CONTEXT)["entropy"].backward()
    assert output.logits.grad is not None
    expected = [-0.311600, 0.161520, 0.150080]
    assert output.logits.grad.flatten().tolist() == pytest.approx(expected, abs=5e-6)


def test_the_auxiliary_head_has_a_weight_of_its_own() -> None:
    """MinEnt: 0.001 and, as 0.2 of it, 0.0002."""
    config = EntropyConfig(unit="share", auxiliary_weight=0.2)
    assert config.needs() == {"target", "auxiliary_head"}
    output = said(0.7, 0.2, 0.1)
    made = config.build(3).terms(VIEW, output, CONTEXT)
    assert made["entropy"].item() == pytest.approx(0.729847, abs=1e-6)
    assert made["auxiliary"].item() == pytest.approx(0.2 * 0.729847, abs=1e-6)
    made["auxiliary"].backward()
    assert output.logits.grad is None
    assert output.auxiliary_logits is not None
    assert output.auxiliary_logits.grad is not None
    assert output.auxiliary_logits.grad.any()


@pytest.mark.parametrize(
    ("probabilities", "value"),
    [((0.7, 0.2, 0.1), 0.00549943), ((1 / 19,) * 19, 1.00005297), ((1.0,), 1e-16)],
)
def test_fdas_penalty_by_hand(probabilities: tuple[float, ...], value: float) -> None:
    """Its code divides by 2.9444, we by log 19."""
    rounding = (2.9444 / math.log(19)) ** 4 if len(probabilities) > 1 else 1
    config = EntropyConfig(unit="share", charbonnier=2.0)
    made = terms(config, said(*probabilities, classes=19))["entropy"]
    assert made == pytest.approx(value * rounding, rel=2e-6)


@pytest.mark.parametrize("sure", [1.0, 0.5])
def test_gradients_are_finite_where_a_class_has_no_probability(sure: float) -> None:
    output = said(sure, 1 - sure, 0.0)
    config = EntropyConfig(unit="share", charbonnier=0.5)
    config.build(3).terms(VIEW, output, CONTEXT)["entropy"].backward()
    assert output.logits.grad is not None
    assert output.logits.grad.isfinite().all()


def test_the_resolution_of_features_is_that_before_logits_are_enlarged() -> None:
    generator = torch.Generator().manual_seed(0)
    blobs = 4 * torch.randn(1, 19, 5, 9, generator=generator)
    coarse = F.interpolate(blobs, (17, 33), mode="bicubic")
    wide = F.interpolate(coarse, (128, 256), mode="bilinear", align_corners=True)
    output = SegmentationOutput(wide.requires_grad_(), None, coarse[:, :3])
    config = EntropyConfig(unit="share", charbonnier=2.0, resolution="features")
    objective = config.build(19)
    objective.attach(small_network(DeepLabV2Config).build(19))
    value = objective.terms(VIEW, output, CONTEXT)["entropy"].item()
    exact = terms(replace(config, resolution="input"), output.replace(logits=coarse))["entropy"]
    at_input = terms(replace(config, resolution="input"), output)["entropy"]
    assert abs(at_input / exact - 1) > 0.01  # between two sure classes, enlarged logits are unsure
    assert abs(value / exact - 1) < 0.2 * abs(at_input / exact - 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"auxiliary_weight": -0.1}, "auxiliary_weight is -0.1"),
     ({"charbonnier": 0.0}, "charbonnier is 0.0; allowed: none")],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=rf"objectives\.entropy\.{message}"):
        EntropyConfig(**settings).check("objectives.entropy")  # type: ignore[arg-type]
