"""Maps of all classes whose rows are computed a few at a time, so that none is held whole."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from uda.evaluation.protocols import Size

# Of the largest value: where a class is so much above another in two rows, it is above it between
# them, too, whatever is rounded there (three times, by 2**-24 of each value).
_CLEARLY = 2**-19
_MOST_OPEN = 0.5  # of the columns: if more are to be computed, it is faster to compute all


class Rows(ABC):
    """A map (1, C, H, W) whose rows are computed when they are needed."""

    size: Size
    classes: int

    @abstractmethod
    def rows(self, first: int, last: int) -> Tensor:
        """(1, C, last - first, W) float32, a tensor of its own or a part of a larger one."""

    def highest(self, first: int, last: int) -> Tensor:
        """(last - first, W) int64: the class with the highest value, the first of equal ones."""
        # Many times faster than argmax over this dimension.
        return self.rows(first, last).max(dim=1).indices[0]


class Map(Rows):
    """A map in memory."""

    def __init__(self, values: Tensor) -> None:
        self.values = values
        self.classes = values.shape[1]
        self.size = (values.shape[2], values.shape[3])

    def rows(self, first: int, last: int) -> Tensor:
        return self.values[:, :, first:last]


class Mirrored(Rows):
    """Left and right swapped, and with them the classes that have a side."""

    def __init__(self, inner: Rows, names: Sequence[int] | None) -> None:
        self.inner, self.classes, self.size = inner, inner.classes, inner.size
        sided = names is not None and list(names) != list(range(inner.classes))
        self.names = list(names) if names is not None and sided else None

    def rows(self, first: int, last: int) -> Tensor:
        rows = self.inner.rows(first, last).flip(3)
        return rows if self.names is None else rows[:, self.names]


class Probabilities(Rows):
    """The softmax of a map of logits."""

    def __init__(self, logits: Rows) -> None:
        self.logits, self.classes, self.size = logits, logits.classes, logits.size

    def rows(self, first: int, last: int) -> Tensor:
        return self.logits.rows(first, last).softmax(dim=1)


class Mean(Rows):
    """The mean of maps of one size."""

    def __init__(self, inner: Sequence[Rows]) -> None:
        self.inner, self.classes, self.size = inner, inner[0].classes, inner[0].size

    def rows(self, first: int, last: int) -> Tensor:
        total = self.inner[0].rows(first, last)
        for other in self.inner[1:]:
            total = total + other.rows(first, last)
        return total / len(self.inner)


class Cropped(Rows):
    """The upper left part of `size`."""

    def __init__(self, inner: Rows, size: Size) -> None:
        self.inner, self.classes, self.size = inner, inner.classes, size

    def rows(self, first: int, last: int) -> Tensor:
        return self.inner.rows(first, last)[..., : self.size[1]]


class Pasted(Rows):
    """The mean of maps that each cover a part of the image."""

    def __init__(self, parts: Sequence[tuple[int, int, Rows]], size: Size) -> None:
        self.parts, self.classes, self.size = parts, parts[0][2].classes, size

    def rows(self, first: int, last: int) -> Tensor:
        total: Tensor | None = None
        for top, left, part in self.parts:
            height, width = part.size
            begin, end = max(first, top), min(last, top + height)
            if begin >= end:
                continue
            rows = part.rows(begin - top, end - top)
            if total is None:
                shape = (1, self.classes, last - first, self.size[1])
                total, times = rows.new_zeros(shape), rows.new_zeros(shape[2:])
            where = (slice(begin - first, end - first), slice(left, left + width))
            total[0, :, *where] += rows[0]
            times[where] += 1
        assert total is not None, "windows cover the image"
        return total.div_(times)


class Resized(Rows):
    """Bilinearly resized as by torch.nn.functional.interpolate, but only the rows needed."""

    def __init__(self, inner: Rows, size: Size, *, align_corners: bool) -> None:
        self.inner, self.classes, self.size = inner, inner.classes, size
        self.align_corners = align_corners

    def rows(self, first: int, last: int) -> Tensor:
        if (first, last) == (0, self.size[0]):
            whole = self.inner.rows(0, self.inner.size[0])
            return _interpolate(whole, self.size, align_corners=self.align_corners)
        return _between(*self._wide(first, last))

    def highest(self, first: int, last: int) -> Tensor:
        height = self.size[0]
        if (first, last) == (0, height) or height < 2 * self.inner.size[0]:
            return super().highest(first, last)
        wide, above, below, share = found_between = self._wide(first, last)
        if wide.device.type != "cpu":  # it would have to be waited for which columns are open
            return _between(*found_between).max(dim=1).indices[0]
        # A class that is well above all others in two rows is the highest between them: products
        # and sums of rounded numbers keep their order. Only the other columns are computed.
        best, classes = wide[0].max(dim=0)
        others = wide[0].scatter(0, classes[None], -math.inf).amax(dim=0)
        clear = others < best - _CLEARLY * best.abs().amax()
        starts = [0, *((above[1:] != above[:-1]).nonzero()[:, 0] + 1).tolist(), len(above)]
        upper, lower = above[starts[:-1]], below[starts[:-1]]
        open_ = ~(clear[upper] & clear[lower] & (classes[upper] == classes[lower]))
        if open_.count_nonzero() > _MOST_OPEN * open_.numel():
            return _between(*found_between).max(dim=1).indices[0]
        found = classes.index_select(0, above)
        for k, (begin, end) in enumerate(pairwise(starts)):
            columns = open_[k].nonzero()[:, 0]
            if len(columns):
                part = share[begin:end, None]
                between = wide[0, :, upper[k], None, columns] * (1 - part)
                between.add_(wide[0, :, lower[k], None, columns] * part)
                found[begin:end, columns] = between.max(dim=0).indices
        return found

    def _wide(self, first: int, last: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The rows (1, C, n, W) that those from `first` to `last` lie between, resized in width;
        of each, on the CPU: the places in them of the rows above and below, and the lower one's
        share."""
        height, width = self.size
        places = _places(self.inner.size[0], height, align_corners=self.align_corners)[first:last]
        above = places.long().clamp_(max=self.inner.size[0] - 1)
        below = (above + 1).clamp_(max=self.inner.size[0] - 1)
        begin, end = int(above[0]), int(below[-1]) + 1
        inner = self.inner.rows(begin, end).contiguous()
        wide = _interpolate(inner, (end - begin, width), align_corners=self.align_corners)
        return wide, above - begin, below - begin, places - above


def _between(wide: Tensor, above: Tensor, below: Tensor, share: Tensor) -> Tensor:
    """The rows that lie between those of `wide`, see `Resized._wide`."""
    above, below, share = (part.to(wide.device) for part in (above, below, share))
    upper = wide.index_select(2, above).mul_(1 - share[:, None])
    return upper.add_(wide.index_select(2, below).mul_(share[:, None]))


def resized(inner: Rows, size: Size, *, align_corners: bool) -> Rows:
    """`inner` at `size`, bilinearly."""
    return inner if inner.size == size else Resized(inner, size, align_corners=align_corners)


def _interpolate(values: Tensor, size: Size, *, align_corners: bool) -> Tensor:
    return F.interpolate(values, size, mode="bilinear", align_corners=align_corners)


def _places(old: int, new: int, *, align_corners: bool) -> Tensor:
    """The positions of `new` row centers among `old` rows, (new) float32, as in PyTorch."""
    index = torch.arange(new, dtype=torch.float32)
    if align_corners:
        return index * ((old - 1) / max(new - 1, 1))
    return ((index + 0.5) * (old / new) - 0.5).clamp_(min=0)
