"""Is A better than B? Images drawn again, the same ones for both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from uda.reports.comparison import Group, Method
from uda.reports.per_image import PerImage, read_per_image
from uda.utilities.errors import InputError

DRAWS = 2000
_ALL_PAIRS = 6  # methods up to which all pairs are compared; of more, each with the first

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Difference:
    """mIoU of one method minus that of another, in points, over the same images; or why there is
    none."""

    first: str
    second: str
    missing: str = ""
    images: int = 0
    difference: float = 0.0
    low: float = 0.0  # of the interval of 95 %
    high: float = 0.0
    share: float = 0.0  # of the draws in which the first is better

    @property
    def verdict(self) -> str:
        if self.missing:
            return "not known"
        if self.low > 0:
            return f"{self.first} is better"
        return f"{self.second} is better" if self.high < 0 else "not shown either way"


def differences(group: Group) -> Iterator[Difference]:
    """Of the methods of a group, each pair or, of many, each one and the first."""
    methods = group.methods
    pairs = list(combinations(methods, 2))
    if len(methods) > _ALL_PAIRS:
        pairs = [pair for pair in pairs if pair[0] is methods[0]]
    for first, second in pairs:
        try:
            yield _difference(first, second)
        except InputError as error:
            yield Difference(first.name, second.name, missing=str(error))


def _difference(first: Method, second: Method) -> Difference:
    """The paired bootstrap (Efron and Tibshirani, 1993): images are drawn with replacement, DRAWS
    times, for both methods alike; the mean of a method's runs is compared. Always the same draws.
    """
    counts = [[_counts(method, place) for place in range(len(method.runs))]
              for method in (first, second)]  # fmt: skip
    every = [each for of_method in counts for each in of_method]
    if not every:
        raise InputError("only figures are here, not the runs that they are of")
    stems = every[0].stems
    for each in every[1:]:
        if set(each.stems) != set(stems):
            raise InputError(
                f"their per-image counts are of other images ({len(stems)} and "
                f"{len(each.stems)}): use the same --images N for all"
            )
    generator = np.random.default_rng(0)
    images = len(stems)
    drawn = generator.multinomial(images, np.full(images, 1 / images), size=DRAWS)
    weights = np.concatenate([np.ones((1, images)), drawn])
    ours, theirs = (
        np.mean([_mious(each, stems, weights) for each in of_method], axis=0)
        for of_method in counts
    )
    found = 100 * (ours - theirs)
    low, high = np.nanquantile(found[1:], (0.025, 0.975))
    return Difference(
        first.name,
        second.name,
        images=images,
        difference=float(found[0]),
        low=float(low),
        high=float(high),
        share=float((found[1:] > 0).mean()),
    )


def _counts(method: Method, place: int) -> PerImage:
    """The counts of a run of the method; InputError, with the command that makes them, when there
    are none, or they are of another snapshot or protocol."""
    found = method.runs[place]
    name = found.run.name
    again = f"uda report {name} --images N makes them"
    counts = read_per_image(found.folder)
    if counts is None:
        raise InputError(f"{name} has no counts of single images: {again}")
    snapshot = None if found.snapshot is None else found.snapshot.name
    if counts.snapshot != snapshot or counts.protocol != found.run.protocol:
        raise InputError(
            f"the counts of single images of {name} are of {counts.snapshot} by {counts.protocol}, "
            f"not of its last scored snapshot: {again}"
        )
    return counts


def _mious(counts: PerImage, stems: Sequence[str], weights: Numbers) -> Numbers:
    """mIoU of each row of `weights`, which says how often each of the images `stems` counts."""
    places = {stem: place for place, stem in enumerate(counts.stems)}
    of_images = counts.counts[[places[stem] for stem in stems]]
    hits = weights @ of_images.diagonal(axis1=1, axis2=2)
    unions = weights @ (of_images.sum(axis=1) + of_images.sum(axis=2)) - hits
    scored = [c for c in range(len(counts.classes)) if c not in counts.unscored]
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = np.where(unions > 0, hits / unions, np.nan)[:, scored]
    present = np.isfinite(iou).sum(axis=1)
    found: Numbers = np.where(present > 0, np.nansum(iou, axis=1) / np.maximum(present, 1), np.nan)
    return found
