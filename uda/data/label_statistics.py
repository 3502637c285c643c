"""What label files hold: how often each value occurs, in how many files, and where in the image."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

_EXAMPLES = 3  # files with the most pixels of a value
_MOST_VALUES = 65536  # up to which counting is cheaper than sorting
_MARGIN = 0.06  # of each side: the border of an image
# Of a value's pixels: it reaches as far out as it would if it were spread evenly (0.23), or nearly.
_MARGIN_SHARE = 0.2
# Of a region, an inner pixel has four neighbors of its own value. What has next to none are lines:
# borders, and the rings that JPEG leaves around regions.
_THIN = 0.1
_RARE = 0.01  # of all pixels
_JPEG_VALUES = 8  # fewer rare values in thin lines may be borders


@dataclass(slots=True)
class ValueFacts:
    """One value or color, over all files that were read."""

    pixels: int = 0
    inner: int = 0  # pixels whose four neighbors have the same value
    files: int = 0
    rows: float = 0.0  # sum over pixels of the row, 0 at the top, 1 at the bottom
    margin: int = 0  # pixels near the image's border
    examples: list[tuple[int, Path]] = field(default_factory=list)  # most pixels first

    @property
    def is_thin(self) -> bool:
        return self.inner < _THIN * self.pixels


class LabelStatistics:
    """Facts of each value or color, added file by file."""

    def __init__(self) -> None:
        self.of: dict[int, ValueFacts] = {}
        self.files = 0
        self.pixels = 0

    def add(self, codes: npt.NDArray[np.integer], path: Path) -> None:
        """codes: (H, W) of values or colors, 0 and above."""
        self.files += 1
        self.pixels += codes.size
        codes, meanings = _small(codes)
        most = len(meanings)
        counts = np.bincount(codes.ravel(), minlength=most)
        inner = np.bincount(codes[1:-1, 1:-1][is_inner(codes)], minlength=most)
        by_row = np.arange(codes.shape[0]) / max(1, codes.shape[0] - 1)
        rows = np.zeros(most)
        margin = counts.copy()
        down, across = (max(1, round(_MARGIN * side)) for side in codes.shape)
        middle = codes[down:-down, across:-across]
        margin -= np.bincount(middle.ravel(), minlength=most)
        for row, place in zip(codes, by_row, strict=True):
            rows += place * np.bincount(row, minlength=most)
        for index in np.flatnonzero(counts).tolist():
            facts = self.of.setdefault(int(meanings[index]), ValueFacts())
            facts.pixels += int(counts[index])
            facts.inner += int(inner[index])
            facts.files += 1
            facts.rows += float(rows[index])
            facts.margin += int(margin[index])
            facts.examples.append((int(counts[index]), path))
            facts.examples.sort(key=lambda example: (-example[0], example[1]))
            del facts.examples[_EXAMPLES:]

    def words(self, code: int) -> str:
        """Share, files and place of a value, such as `12 % of the pixels, in 9 of 10 files, at the
        top`; "" where no file has it."""
        facts = self.of.get(code)
        if facts is None:
            return ""
        share = f"{100 * facts.pixels / self.pixels:.2g} % of the pixels"
        return f"{share}, in {facts.files} of {self.files} files, {_where(facts)}"

    @property
    def thin(self) -> list[int]:
        """The rare values of which there is hardly more than lines, ascending."""
        rare = _RARE * self.pixels
        return sorted(c for c, f in self.of.items() if f.is_thin and f.pixels < rare)

    @property
    def looks_like_jpeg(self) -> bool:
        """Whether most values are rare and lie in thin lines: what JPEG makes of a label map."""
        return damaged_by_jpeg(len(self.thin), len(self.of))


def damaged_by_jpeg(thin: int, values: int) -> bool:
    """Whether so many rare values in thin lines, of so many values, are what JPEG leaves."""
    return thin >= _JPEG_VALUES and 2 * thin >= values


def is_inner(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.bool_]:
    """(H - 2, W - 2): which inner pixels have four neighbors of the same value."""
    center = codes[1:-1, 1:-1]
    upright = (codes[:-2, 1:-1] == center) & (codes[2:, 1:-1] == center)
    return upright & (codes[1:-1, :-2] == center) & (codes[1:-1, 2:] == center)


def thin_values(codes: npt.NDArray[np.uint8], counts: Mapping[int, int]) -> int:
    """How many rare values of a label map (H, W), with `counts` of its values, lie in thin lines;
    see `looks_like_jpeg`. Most maps have too few rare values for that: their pixels are not read.
    """
    rare = [value for value, count in counts.items() if count < _RARE * codes.size]
    if not damaged_by_jpeg(len(rare), len(counts)):
        return 0
    inner = np.bincount(codes[1:-1, 1:-1][is_inner(codes)], minlength=256)
    return sum(int(inner[value]) < _THIN * counts[value] for value in rare)


def _small(
    codes: npt.NDArray[np.integer],
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """(H, W) of small numbers, and what each stands for."""
    if codes.max(initial=0) < 256:
        return codes, np.arange(256)
    meanings, places = np.unique(codes, return_inverse=True)
    return places.reshape(codes.shape), meanings


def _where(facts: ValueFacts) -> str:
    if facts.is_thin:
        return "in thin lines"
    if facts.margin > 0.6 * facts.pixels:
        return "along the border of the image"
    height = facts.rows / facts.pixels
    if 0.36 <= height <= 0.64:
        around = facts.margin > _MARGIN_SHARE * facts.pixels
        return "all over the image" if around else "in the middle"
    return "at the top" if height < 0.36 else "at the bottom"
