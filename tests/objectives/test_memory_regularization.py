"""Memory regularization: both heads follow what they say together, on the target only."""

import numpy as np
import pytest
import torch

from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.memory_regularization import MemoryRegularizationConfig

CONTEXT = StepContext(step=0, seed=0, indices=(0, 1))
VIEW = View("target", torch.zeros(2, 3, 4, 6))


def output() -> SegmentationOutput:
    main, auxiliary = torch.randn(
        2, 2, 5, 4, 6, generator=torch.Generator().manual_seed(0)
    ).unbind()
    return SegmentationOutput(
        main.requires_grad_(), auxiliary.requires_grad_(), torch.zeros(2, 1, 1, 1)
    )


def test_the_formula_by_hand() -> None:
    objective = MemoryRegularizationConfig().build(5)
    said = output()
    terms = objective.terms(VIEW, said, CONTEXT)
    assert list(terms) == ["kl"]
    assert said.auxiliary_logits is not None
    main, auxiliary = (
        logits.detach().double().softmax(1).numpy()
        for logits in (said.logits, said.auxiliary_logits)
    )
    fused = said.logits.detach() + 0.5 * said.auxiliary_logits.detach()
    q = fused.double().softmax(1).numpy()
    per_pixel = (q * np.log(q / main)).sum(axis=1) + (q * np.log(q / auxiliary)).sum(axis=1)
    assert terms["kl"].item() == pytest.approx(per_pixel.mean(), rel=1e-5)


def test_both_heads_learn_and_the_reference_does_not() -> None:
    """A head's gradient is (its probabilities - the reference) per pixel: none through q."""
    said = output()
    MemoryRegularizationConfig().build(5).terms(VIEW, said, CONTEXT)["kl"].backward()
    assert said.auxiliary_logits is not None
    with torch.no_grad():
        q = (said.logits + 0.5 * said.auxiliary_logits).softmax(1)
        for logits in (said.logits, said.auxiliary_logits):
            expected = (logits.softmax(1) - q) / (2 * 4 * 6)
            assert logits.grad is not None
            assert torch.allclose(logits.grad, expected, atol=1e-7)


def test_settings_of_the_log() -> None:
    config = MemoryRegularizationConfig()
    assert config.weight == 0.1
    assert config.needs() == {"target", "auxiliary_head"}
    assert config.build(5).reads == {"target"}
