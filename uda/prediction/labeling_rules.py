"""Which pixels get a pseudo-label: rules with one threshold, or one for each class."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from uda.objectives.functional.class_thresholds import AdaptiveConfig, adapted_thresholds
from uda.utilities.distributed import sum_over_ranks, world_size
from uda.utilities.errors import require

_BINS = 2**18  # of confidences between 0 and 1
_EVERY = 4  # rows and columns that CBST's thresholds are taken from, as in its authors' code


class Judged(NamedTuple):
    """One image's pixels, all with a label, and which keep it."""

    stem: str
    labels: Tensor  # (H, W) int64
    sure: Tensor  # (H, W) bool


class Predicted(NamedTuple):
    """What a network says of one image."""

    stem: str
    labels: Tensor  # (H, W) int64
    confidence: Tensor  # (H, W) float32


@dataclass(frozen=True, kw_only=True, slots=True)
class FixedThreshold:
    """One threshold for all classes."""

    threshold: float
    words: ClassVar[str] = "most probable class where its softmax probability reaches the threshold"

    def check(self) -> None:
        require(
            0 <= self.threshold <= 1,
            f"--threshold {self.threshold:g}: a softmax probability, between 0 and 1",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassBalanced:
    """CBST: of every class, the most confident portion of its pixels in all images together.

    Source: Zou et al., ECCV 2018, arXiv 1810.07911, equations 4 and 5; every 4th row and column,
    and the places in the sorted lists, as in the code of CRST (arXiv 1908.09822).
    """

    portion: float = 0.2
    words: ClassVar[str] = (
        "class-balanced (CBST): class with the highest quotient of softmax probability and its "
        "threshold, where that reaches 1"
    )
    every: ClassVar[int] = _EVERY

    def check(self) -> None:
        _check_share("--portion", self.portion)

    def thresholds(self, counts: "ConfidenceCounts") -> list[float]:
        """The confidence at place floor(portion * n) in descending order, 1 where that is 0."""
        kept = [int(count * self.portion) for count in counts.totals()]
        places = [count - m for count, m in zip(counts.totals(), kept, strict=True)]
        found = counts.ascending(places)
        return [value if m else 1.0 for value, m in zip(found, kept, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Quantile:
    """FDA: of every class, the pixels above a quantile of its confidences, and all above the cap.

    Source: Yang and Soatto, CVPR 2020, arXiv 2004.05498, quantile 0.66 and cap 0.9, as in its
    code; BDL (Li et al., CVPR 2019, arXiv 1904.10620) has 0.5 and 0.9.
    """

    quantile: float = 0.66
    cap: float = 0.9
    words: ClassVar[str] = (
        "most probable class where its softmax probability reaches the class's threshold: a "
        "quantile of the class's probabilities in all images, at most the cap"
    )
    every: ClassVar[int] = 1

    def check(self) -> None:
        _check_share("--quantile", self.quantile)
        _check_share("--cap", self.cap)

    def thresholds(self, counts: "ConfidenceCounts") -> list[float]:
        """The confidence at place round(quantile * n), from 0, in ascending order; at most the cap.
        0 for a class without pixels."""
        totals = counts.totals()
        places = [min(round(self.quantile * count), count - 1) for count in totals]
        found = counts.ascending(places)
        return [
            min(value, self.cap) if count else 0.0
            for value, count in zip(found, totals, strict=True)
        ]


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceAdaptive:
    """IAST: thresholds that follow the classes' confidences from some images to the next, in the
    order of the list, and decide about the images that have just moved them.

    The same images in another order get other labels. Source: Mei et al., ECCV 2020,
    arXiv 2008.12197, as its code computes it; there, `images` is 2.
    """

    start: float = 0.9
    alpha: float = 0.2
    beta: float = 0.9
    gamma: float = 8.0
    images: int = 2  # that move the thresholds together
    words: ClassVar[str] = (
        "instance-adaptive (IAST): most probable class where its softmax probability reaches the "
        "class's threshold, which follows the images in the order of their list; the thresholds "
        "are those after the last"
    )

    def check(self) -> None:
        require(self.images > 0, f"--images {self.images}: allowed: 1 or more")
        require(0 < self.start < 1, f"--start {self.start:g}: allowed: above 0, below 1")
        for name, value in (("--alpha", self.alpha), ("--beta", self.beta)):
            require(0 <= value <= 1, f"{name} {value:g}: allowed: 0 to 1")
        require(self.gamma >= 0, f"--gamma {self.gamma:g}: allowed: 0 or more")
        require(
            world_size() == 1,
            "--rule iast decides about each image by those before it, in one process: start it "
            "without torchrun",
        )

    @property
    def moving(self) -> AdaptiveConfig:
        return AdaptiveConfig(start=self.start, alpha=self.alpha, beta=self.beta, gamma=self.gamma)


Rule = FixedThreshold | ClassBalanced | Quantile | InstanceAdaptive


def settings_of(rule: Rule) -> dict[str, float]:
    """The numbers of a rule with a threshold for each class, by name."""
    if isinstance(rule, FixedThreshold):
        return {}
    own = {name: float(value) for name, value in asdict(rule).items()}
    return own | ({"every": float(rule.every)} if isinstance(rule, ClassBalanced) else {})


def first_thresholds(
    rule: Rule, predicted: Callable[[], Iterator[Predicted]], num_classes: int
) -> Tensor | None:
    """The thresholds (C,) that a rule begins to label with; None with one for all classes. For
    those of all images, `predicted` is called, and gives this process's share of them."""
    match rule:
        case FixedThreshold():
            return None
        case InstanceAdaptive():
            return torch.full((num_classes,), rule.start, dtype=torch.float64)
        case ClassBalanced() | Quantile():
            counts = ConfidenceCounts(num_classes, every=rule.every)
            for one in predicted():
                counts.add(one.labels, one.confidence)
            counts.gather()
            return torch.tensor(rule.thresholds(counts))


class ConfidenceCounts:
    """How often each class was predicted with each confidence, in 2**18 steps from 0 to 1.

    So thresholds over thousands of images need 2 MiB per class. A threshold is the lower end of the
    step that holds the exact one: lower by less than 4e-6.
    """

    def __init__(self, num_classes: int, *, every: int) -> None:
        """`every`: of this many rows and columns, one is counted."""
        self.counts = torch.zeros(num_classes, _BINS, dtype=torch.int64)
        self._every = every

    def add(self, labels: Tensor, confidence: Tensor) -> None:
        """Counts one image: labels (H, W) int64, confidence (H, W) float32."""
        part = (slice(None, None, self._every),) * 2
        steps = (confidence[part] * _BINS).long().clamp_(0, _BINS - 1)
        places = (labels[part] * _BINS + steps).flatten()
        found = torch.bincount(places, minlength=self.counts.numel())
        self.counts += found.view_as(self.counts).to(self.counts.device)

    def gather(self) -> None:
        """Adds what all other processes have counted."""
        self.counts = sum_over_ranks(self.counts)

    def totals(self) -> list[int]:
        """Counted pixels of each class."""
        totals: list[int] = self.counts.sum(dim=1).tolist()
        return totals

    def ascending(self, places: list[int]) -> list[float]:
        """Of each class, the confidence at a place, from 0, in ascending order; of no meaning for a
        place that the class does not have."""
        below = self.counts.cumsum(dim=1) <= torch.tensor(places)[:, None]
        return [int(step) / _BINS for step in below.sum(dim=1)]


def judged(rule: Rule, found: Iterator[Predicted], thresholds: Tensor | None) -> Iterator[Judged]:
    """The pixels of each image that keep their label.

    `thresholds`: (C,), None for one threshold; of `InstanceAdaptive` those to start from, float64,
    which are moved. With `ClassBalanced`, `confidence` is already the quotient by the threshold.
    """
    match rule:
        case InstanceAdaptive():
            assert thresholds is not None
            while group := list(islice(found, rule.images)):
                labels = torch.cat([one.labels.flatten() for one in group])
                confidence = torch.cat([one.confidence.flatten() for one in group])
                before = thresholds.to(labels.device)
                now = adapted_thresholds(before, labels, confidence, rule.moving)
                thresholds.copy_(now)
                for one in group:
                    yield _judged(one, now[one.labels])
        case Quantile():
            assert thresholds is not None
            for one in found:
                yield _judged(one, thresholds.to(one.labels.device)[one.labels])
        case ClassBalanced():
            yield from (_judged(one, 1.0) for one in found)
        case FixedThreshold():
            yield from (_judged(one, rule.threshold) for one in found)


def _judged(one: Predicted, threshold: Tensor | float) -> Judged:
    return Judged(one.stem, one.labels, one.confidence >= threshold)


def _check_share(option: str, value: float) -> None:
    require(0 < value <= 1, f"{option} {value:g}: allowed: above 0, up to 1")
