"""Thresholds of confidence for each class: of self-training's pseudo-labels, and of online ones.

labels (...) int64 and confidence (...) float, softmax probability of the label, are those of pixels
with any shape. Nothing here waits for the device.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from uda.objectives.functional.losses import count_classes
from uda.objectives.functional.pseudo_labels import PseudoLabels
from uda.utilities.errors import require, require_share

_HIGHEST = 0.999  # of a moving threshold


@dataclass(kw_only=True, slots=True)
class AdaptiveConfig:
    """How a threshold follows the confidence of its class (IAST, arXiv 2008.12197, equation 4).

    Of a class with threshold t, the most confident share `alpha * t**gamma` counts at present, and
    t moves toward the lowest confidence among them.
    """

    start: float = 0.9  # every class's threshold before the first pixel
    alpha: float = 0.2
    beta: float = 0.9  # share of a threshold that stays
    gamma: float = 8.0

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(0 < self.start < 1, f"{path}.start is {self.start}; allowed: above 0, below 1")
        require_share(f"{path}.alpha", self.alpha)
        require_share(f"{path}.beta", self.beta)
        require(self.gamma >= 0, f"{path}.gamma is {self.gamma}; allowed: 0 or more")


class _Sorted(NamedTuple):
    """Confidences, class by class and ascending within each."""

    values: Tensor  # (n,) float64
    first: Tensor  # (C,) int64, the place of each class's lowest one
    counts: Tensor  # (C,) int64

    def at(self, place: Tensor) -> Tensor:
        """The confidence (C,) at the place (C,) int64 of each class, from 0 to its number of pixels
        minus 1. That of a place outside of this range is of no meaning."""
        return self.values[(self.first + place).clamp(0, len(self.values) - 1)]


def _sorted(labels: Tensor, confidence: Tensor, num_classes: int) -> _Sorted:
    labels = labels.flatten()
    # Confidence is at most 1, so a class's values lie in an interval of its own; doubles keep every
    # bit of a float32 there.
    values = (2.0 * labels + confidence.flatten().double()).sort().values.fmod(2.0)
    count = count_classes(labels, num_classes)
    return _Sorted(values, count.cumsum(0) - count, count)


@torch.no_grad()
def class_balanced_thresholds(
    labels: Tensor, confidence: Tensor, num_classes: int, *, portion: float
) -> Tensor:
    """Thresholds (C,) float64 that the most confident `portion` of each class's pixels reach: the
    confidence at place floor(portion * n) of n in descending order, 1 where that is place 0.

    Source: Zou et al., "CBST", ECCV 2018, arXiv 1810.07911, equation 4; places as in the code of
    CRST (ICCV 2019, arXiv 1908.09822).
    """
    found = _sorted(labels, confidence, num_classes)
    kept = (found.counts.double() * portion).floor().long()
    return torch.where(kept > 0, found.at(found.counts - kept), 1.0)


@torch.no_grad()
def class_balanced_labels(probabilities: Tensor, thresholds: Tensor) -> PseudoLabels:
    """The labels (N, H, W) with the highest quotient of probability (N, C, H, W) and threshold
    (C,), and that quotient in the place of the confidence: 1 or more where the label counts.

    A label may differ from the most probable class. Source: arXiv 1810.07911, equation 5.
    """
    quotients = probabilities / thresholds.to(probabilities)[:, None, None]
    highest, labels = quotients.max(dim=1)
    return PseudoLabels(labels=labels, confidence=highest)


@torch.no_grad()
def adapted_thresholds(
    thresholds: Tensor, labels: Tensor, confidence: Tensor, config: AdaptiveConfig
) -> Tensor:
    """The thresholds (C,) float64 after pixels whose confidence they follow.

    The percentile of a class is over its confidences in half precision and its own threshold, so a
    class without pixels keeps its threshold.
    Source: Mei et al., "IAST", ECCV 2020, arXiv 2008.12197, algorithm 1, as its code computes it.
    """
    classes = torch.arange(len(thresholds), device=labels.device)
    found = _sorted(
        torch.cat([labels.flatten(), classes]),
        torch.cat([confidence.flatten().half().double(), thresholds]),
        len(thresholds),
    )
    kept = config.alpha * thresholds**config.gamma
    place = (found.counts - 1) * (1 - kept)
    below = place.floor()
    low, high = found.at(below.long()), found.at(place.ceil().long())
    now = torch.lerp(low, high, place - below)
    moved = config.beta * thresholds + (1 - config.beta) * now
    return torch.where(moved >= 1, _HIGHEST, moved)
