"""Class names against a confusion matrix: would other names explain it far better?

A network whose class list differs from that of the labels may be good, but scores like a bad one.
The sign is that it separates the classes under the wrong names: each row of the matrix has its
pixels in one column, but not in its own. If rows and columns have the same wrong names, this is
invisible; `uda.data.class_range` checks for that.

A bad network does something else. It predicts one class for the pixels of several; it spreads the
pixels of a class over many columns; or it predicts a few classes everywhere. Hence this rule, for
the assignment of columns to rows with the highest sum of IoU:

- a class has moved if its IoU with another column is at least 0.2, and four times its own IoU and
  that of the class that the column is named after, with 1000 pixels or more in the cell.
- the names are shifted if four classes or more have moved by the same number of places, and these
  are two thirds of all classes with as much IoU and as many pixels in the assignment, moved or not:
  training does not arrive there by chance, not even where most classes are not learned at all.
- classes are exchanged if they have moved in a cycle, each to the place of the next: a class whose
  pixels another one got is then found elsewhere. Since two classes may be confused with each other,
  they need an IoU of 0.5 in the assignment and at most a tenth of that as named; since even a bad
  network may do that, two thirds of the labeled classes need an IoU of 0.2.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uda.evaluation.metrics import Scores, mean_of_present

_LEAST_IOU = 0.2
_TIMES_BETTER = 4.0
_LEAST_IOU_IN_CIRCLE = 0.5
_TIMES_BETTER_IN_CIRCLE = 10.0
_LEAST_PIXELS = 1000  # in a cell of the matrix: a few objects prove nothing
_LEAST_SHIFTED = 4  # classes
_SHOWN = 3  # classes in the warning

Matrix = npt.NDArray[np.float64]
_NUMBERS = {1: "one", 2: "two", 3: "three"}


class _Assignment(NamedTuple):
    """The assignment of columns to rows with the highest sum of IoU."""

    column_of: Mapping[int, int]  # by row, both among the classes that occur
    iou: Matrix  # (C, C) of each row with each column; 0 for classes that do not occur
    pixels: npt.NDArray[np.int64]  # (C, C)
    labeled: frozenset[int]

    @property
    def strong(self) -> list[int]:
        """The rows that the assignment explains."""
        return [r for r, c in self.column_of.items() if self.iou[r, c] >= _LEAST_IOU]

    def moved(self, *, least_iou: float, times_better: float) -> dict[int, int]:
        """The rows that another column explains that much better than their own, with it."""
        return {
            row: column
            for row, column in self.column_of.items()
            if column != row
            and self.iou[row, column] >= least_iou
            and self.iou[row, column] >= times_better * self.iou[row, row]
            and self.iou[row, column] >= times_better * self.iou[column, column]
            and self.pixels[row, column] >= _LEAST_PIXELS
        }


def name_warning(scores: Scores, names: Sequence[str]) -> str:
    """One line when other names would explain the confusion matrix far better, else "".

    names: of the classes, one for each IoU; the matrix may have one more row and column, the rest.
    """
    best = _assignment(scores, len(names))
    moved = _shifted(best)
    if moved:
        places = abs(next(column - row for row, column in moved.items()))
        said = f"names are shifted by {_NUMBERS.get(places, places)}"
    else:
        moved = _exchanged(best)
        said = f"{len(moved)} names are exchanged"
    if not moved:
        return ""
    pairs = [f"{names[row]} is predicted as {names[column]}" for row, column in moved.items()]
    more = [f"and so on, {len(pairs)} classes"] if len(pairs) > _SHOWN else []
    now, then = (_miou(best, scores.unscored, renamed=renamed) for renamed in (False, True))
    return (
        f"{said}: {', '.join([*pairs[:_SHOWN], *more])}; with the others' names mIoU would be "
        f"{100 * then:.2f}, not {100 * now:.2f}: compare the network's class list with that of "
        "the labels"
    )


def _assignment(scores: Scores, classes: int) -> _Assignment:
    # Takes half a second to import, and only scores need it.
    from scipy.optimize import linear_sum_assignment

    counts = np.array(scores.confusion, np.int64).reshape(len(scores.confusion), -1)
    rows, columns = counts.sum(axis=1)[:classes], counts.sum(axis=0)[:classes]
    pixels = counts[:classes, :classes]
    unions = rows[:, None] + columns[None] - pixels
    iou = pixels / np.maximum(unions, 1)
    present = np.flatnonzero((rows > 0) | (columns > 0))
    found = linear_sum_assignment(iou[np.ix_(present, present)], maximize=True)
    column_of = {int(present[r]): int(present[c]) for r, c in zip(*found, strict=True)}
    return _Assignment(column_of, iou, pixels, frozenset(np.flatnonzero(rows > 0).tolist()))


def _shifted(best: _Assignment) -> dict[int, int]:
    """The classes that have moved by the same number of places; {} if that may be chance."""
    moved = best.moved(least_iou=_LEAST_IOU, times_better=_TIMES_BETTER)
    offsets = [column - row for row, column in moved.items()]
    common = max(offsets, key=offsets.count, default=0)
    times = offsets.count(common)
    comparable = [r for r in best.strong if best.pixels[r, best.column_of[r]] >= _LEAST_PIXELS]
    if times < _LEAST_SHIFTED or 3 * times < 2 * len(comparable):
        return {}
    return {row: column for row, column in moved.items() if column - row == common}


def _exchanged(best: _Assignment) -> dict[int, int]:
    """The classes that have moved in a cycle, in the matrix of a good network."""
    if 3 * len(best.strong) < 2 * len(best.labeled):
        return {}
    left = best.moved(least_iou=_LEAST_IOU_IN_CIRCLE, times_better=_TIMES_BETTER_IN_CIRCLE)
    while any(column not in left for column in left.values()):
        left = {row: column for row, column in left.items() if column in left}
    return left


def _miou(best: _Assignment, unscored: Sequence[int], *, renamed: bool) -> float:
    """Mean over the scored classes that occur."""
    return mean_of_present(
        float(best.iou[row, column if renamed else row])
        for row, column in best.column_of.items()
        if row not in unscored
    )
