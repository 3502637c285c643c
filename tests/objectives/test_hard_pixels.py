"""Online hard example mining: which pixels count, by hand."""

import math

import pytest
import torch

from uda.objectives.functional.hard_pixels import OhemConfig
from uda.objectives.functional.losses import cross_entropy
from uda.objectives.supervised import SupervisedConfig
from uda.utilities.errors import InputError


def test_unlearned_pixels_count_and_at_least_so_many() -> None:
    """Probabilities 0.9, 0.8, 0.6 and 0.2 of the label, and one ignored pixel."""
    right = torch.tensor([0.9, 0.8, 0.6, 0.2, 0.1])
    logits = torch.stack([right, 1 - right]).log().view(1, 2, 1, 5)
    labels = torch.tensor([[[0, 0, 0, 0, 255]]])

    def loss(below: float, at_least: int) -> float:
        hard = OhemConfig(below=below, at_least=at_least)
        return cross_entropy(logits, labels, hardest=hard).item()

    def mean(*probabilities: float) -> float:
        return sum(-math.log(p) for p in probabilities) / len(probabilities)

    assert loss(0.7, 1) == pytest.approx(mean(0.6, 0.2))
    assert loss(0.7, 2) == pytest.approx(mean(0.6, 0.2))
    assert loss(0.7, 3) == pytest.approx(mean(0.8, 0.6, 0.2))
    assert loss(0.3, 1) == pytest.approx(mean(0.2))
    assert loss(0.1, 1) == pytest.approx(mean(0.2))
    assert loss(0.1, 10**6) == pytest.approx(mean(0.9, 0.8, 0.6, 0.2))


def test_no_labeled_pixel_is_0() -> None:
    logits = torch.randn(1, 2, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 2, 2), 255), hardest=OhemConfig())
    assert loss.item() == 0
    loss.backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_what_is_out_of_range_is_refused() -> None:
    with pytest.raises(InputError, match=r"ohem\.below is 0"):
        SupervisedConfig(ohem=OhemConfig(below=0.0)).check("objectives.supervised")
    with pytest.raises(InputError, match=r"class_balance is true, but .*\.ohem=none"):
        SupervisedConfig(ohem=OhemConfig(), class_balance=True).check("objectives.supervised")
