"""Rare class sampling: which source image a sample is, chosen by a class that it shows.

Source: Hoyer et al., "DAFormer", CVPR 2022, arXiv 2111.14887, section 3.2, equations 9 and 10. Only
labels of source images are counted.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from uda.data.class_pixels import Counts, Progress, Remembered, class_pixels, without_progress
from uda.data.config import DataConfig, RareClassConfig
from uda.data.crops import ShownClass
from uda.data.known_files import KnownFiles
from uda.data.registry import layout_named, root_of
from uda.data.samples import Sample
from uda.data.set_choice import members_of_sets
from uda.labels.spaces import LabelSpace
from uda.utilities.errors import require
from uda.utilities.reading import expanded

_SHOWN = 0.001  # lowest probability that is printed


@dataclass(frozen=True, slots=True)
class RareClasses:
    """Which classes source images are chosen for, and which images show them."""

    rules: RareClassConfig
    names: tuple[str, ...]  # of all C classes
    probabilities: npt.NDArray[np.float64]  # (C,), 0 for a class without candidates
    candidates: tuple[npt.NDArray[np.int64], ...]  # for each class, numbers of source images
    without_candidates: tuple[str, ...]  # classes that occur, but no image has enough pixels of
    digest: str  # of the counts

    def choose(self, rng: np.random.Generator) -> tuple[int, ShownClass]:
        """The number of a source image, and the class that it was chosen for."""
        total = np.cumsum(self.probabilities)
        train_id = int(np.searchsorted(total / total[-1], rng.random(), side="right"))
        among = self.candidates[train_id]
        return int(among[rng.integers(len(among))]), ShownClass(train_id, self.rules)

    @property
    def line(self) -> str:
        """The probabilities in words, the rarest classes first."""
        order = np.argsort(-self.probabilities, kind="stable")
        likely = [place for place in order if self.probabilities[place] >= _SHOWN]
        shown = ", ".join(f"{self.names[p]} {100 * self.probabilities[p]:.1f} %" for p in likely)
        more = np.count_nonzero(self.probabilities) - len(likely)
        shown += f", {more} more below {100 * _SHOWN:.1f} %" if more else ""
        if self.without_candidates:
            shown += (
                f"; never chosen, as no image has more than {self.rules.min_pixels} pixels: "
                + ", ".join(self.without_candidates)
            )
        return shown


def class_probabilities(
    pixels: Counts, temperature: float, among: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """(C,) from the pixels (C,) of each class: equation 10, `among` (C,) some of the classes."""
    logits = np.where(among, -pixels / pixels.sum() / temperature, -np.inf)
    raised = np.exp(logits - logits.max())
    return np.asarray(raised / raised.sum())


def rare_classes(counts: Counts, rules: RareClassConfig, space: LabelSpace) -> RareClasses:
    """From the pixels (N, C) of each class in each source image.

    Raises InputError when no image has enough pixels of any class.
    """
    pixels, largest = counts.sum(axis=0), int(counts.max())
    require(
        largest > rules.min_pixels,
        f"data.rare_classes.min_pixels is {rules.min_pixels}, but no label file of the source has "
        f"more than {largest} pixels of a class: "
        + (
            f"add --set data.rare_classes.min_pixels={largest // 20}"
            if largest
            else "add --set data.rare_classes=none, or choose another source"
        ),
    )
    shows = counts > rules.min_pixels
    found = np.asarray(shows.any(axis=0))
    lacking = np.flatnonzero((pixels > 0) & ~found)
    return RareClasses(
        rules,
        space.classes,
        class_probabilities(pixels, rules.temperature, found),
        tuple(np.flatnonzero(column) for column in shows.T),
        tuple(space.classes[train_id] for train_id in lacking),
        hashlib.sha256(np.ascontiguousarray(counts, "<i8").tobytes()).hexdigest(),
    )


def open_rare_classes(
    data: DataConfig,
    source: Sequence[Sample],
    label_space: LabelSpace,
    files: KnownFiles,
    progress: Progress = without_progress,
) -> tuple[RareClasses, ...]:
    """What `data.rare_classes` makes of the `source`: one for all its images or, where data sets
    have weights, one for those of each; none without `data.rare_classes`. See `class_pixels`."""
    rules = data.rare_classes
    if rules is None or data.source is None:
        return ()
    root = root_of(data.root, data.source.datasets)
    remembered = {}
    for name in data.source.datasets:
        layout = layout_named(name)
        folder = root / layout.folder
        given, where = rules.statistics, "data.rare_classes.statistics"
        kept = folder if given is None else expanded(Path(given), where)
        remembered[layout.name] = Remembered(folder, kept / f"class_pixels_{layout.name}.json")
    counts = class_pixels(
        source, label_space, remembered, files, workers=data.workers, progress=progress
    )
    if data.source.weights is None:
        return (rare_classes(counts, rules, label_space),)
    found = []
    for members in members_of_sets(data.source, source):
        own = np.zeros_like(counts)
        own[members] = counts[members]
        found.append(rare_classes(own, rules, label_space))
    return tuple(found)
