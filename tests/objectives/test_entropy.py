"""Entropy: whose, in which unit, and that minimizing it makes predictions sure."""

import math

import pytest
import torch

from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.entropy import EntropyConfig

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
    moved = said._replace(logits=(said.logits - said.logits.grad).detach())
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
    assert objective.terms(VIEW, output()._replace(auxiliary_logits=None), CONTEXT)
