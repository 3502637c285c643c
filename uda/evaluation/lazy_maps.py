"""Maps of all classes whose rows are computed a few at a time, so that none is held whole."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from uda.evaluation.protocols import Size


class Rows(ABC):
    """A map (1, C, H, W) whose rows are computed when they are needed."""

    size: Size
    classes: int

    @abstractmethod
    def rows(self, first: int, last: int) -> Tensor:
        """(1, C, last - first, W) float32, a tensor of its own or a part of a larger one."""


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
        height, width = self.size
        if (first, last) == (0, height):
            whole = self.inner.rows(0, self.inner.size[0])
            return _interpolate(whole, self.size, align_corners=self.align_corners)
        places = _places(self.inner.size[0], height, align_corners=self.align_corners)[first:last]
        above = places.long().clamp_(max=self.inner.size[0] - 1)
        below = (above + 1).clamp_(max=self.inner.size[0] - 1)
        share = places - above
        begin, end = int(above[0]), int(below[-1]) + 1
        inner = self.inner.rows(begin, end).contiguous()
        wide = _interpolate(inner, (end - begin, width), align_corners=self.align_corners)
        device = wide.device
        share = share.to(device)[:, None]
        upper = wide.index_select(2, (above - begin).to(device))
        return upper.mul_(1 - share).add_(
            wide.index_select(2, (below - begin).to(device)).mul_(share)
        )


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
