"""Logits at a network's own stride that stand for those at the size of its images.

At that size, 19 classes take 16 times the memory that they take at stride 4, and so does all that a
loss makes of them. `per_pixel` computes it a few rows at a time.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

Size = tuple[int, int]

# Numbers in a strip, of all classes and images. On a CPU it stays in a cache, and yet is so large
# that threads have to wait for each other rarely; elsewhere, the number of kernels counts.
_STRIP_VALUES = {"cpu": 2**20}
_STRIP_VALUES_ELSEWHERE = 2**24


class Upsampled:
    """Bilinearly upsampled logits (N, C, H, W), of which only those at stride are in memory."""

    def __init__(self, coarse: Tensor, size: Size | None, *, align_corners: bool = False) -> None:
        """coarse: (N, C, h, w) float; `size`: (H, W), None where they are not to be resized"""
        self.coarse, self.size, self.align_corners = coarse, size, align_corners
        self._whole: Tensor | None = None
        self._wide: Tensor | None = None

    def whole(self) -> Tensor:
        """All of them, (N, C, H, W) float32, or those of `coarse` where there is no `size`. They
        are kept for the next call, and gradients flow back to `coarse` from whichever call."""
        if self.size is None:
            return self.coarse
        if self._whole is None:
            with torch.set_grad_enabled(self.coarse.requires_grad):
                self._whole = F.interpolate(
                    self.coarse.float(),
                    size=self.size,
                    mode="bilinear",
                    align_corners=self.align_corners,
                )
        return self._whole

    def wide(self) -> Tensor:
        """(h, N, C, W) float32 without gradient, kept: rows are upsampled, columns are not. Rows
        come first, so that a strip of the whole is a product of two matrices."""
        if self._wide is None:
            rows = self.coarse.detach().float().permute(2, 0, 1, 3)
            self._wide = rows @ self._across().t()
        return self._wide

    def to_coarse(self, wide: Tensor) -> Tensor:
        """The gradient (N, C, h, w) of `coarse` from that of `wide`."""
        return (wide @ self._across()).permute(1, 2, 0, 3).to(self.coarse.dtype)

    def rows(self, first: int, last: int) -> "_Rows":
        """What rows `first` to `last` of the whole are made of."""
        assert self.size is not None, "others are whole"
        old, new, device = self.coarse.shape[2], self.size[0], self.coarse.device
        return _rows(first, last, old, new, self.align_corners, device)

    def _across(self) -> Tensor:
        assert self.size is not None, "others are whole"
        old, new, device = self.coarse.shape[3], self.size[1], self.coarse.device
        return _across(old, new, self.align_corners, device)


Logits = Tensor | Upsampled  # (N, C, H, W)


def whole(logits: Logits) -> Tensor:
    """Logits as one tensor (N, C, H, W)."""
    return logits.whole() if isinstance(logits, Upsampled) else logits


def per_pixel(
    function: Callable[..., Tensor],
    *logits: Logits,
    along: Sequence[Tensor] = (),
    gradient: Callable[..., Sequence[Tensor]] | None = None,
) -> Tensor:
    """`function` of logits and of maps `along` them, pixel by pixel: (N, H, W) or (N, K, H, W),
    with gradients to the logits.

    function: of as many logits (M, C, ...) float and maps (M, ...) as there are, to (M, ...) or
        (M, K, ...); what it returns for a pixel must depend on that pixel alone
    along: (N, H, W) or (1, H, W) each, such as labels; no gradient flows to them
    gradient: of the arguments of `function` and the gradient that arrives at its result, to those
        of its logits, where that takes less than autograd; it may change its arguments

    Upsampled logits exist for a few rows at a time only: `function` is called for these, and called
    again for their gradients. So it must not be random, and its result has no second derivative.
    """
    maps = [each for each in logits if isinstance(each, Upsampled) and each.size is not None]
    if len(maps) < len(logits) or len({(each.size, each.coarse.dtype) for each in maps}) > 1:
        return function(*map(whole, logits), *along)
    images = len(maps[0].coarse)
    strips = _Strips(function, gradient, maps, [a.expand(images, *a.shape[1:]) for a in along])
    found: Tensor = _PerPixel.apply(strips, *(each.coarse for each in maps))
    return found


class _Rows(NamedTuple):
    """Rows of a map are `weights` (rows, end - begin) times rows `begin` to `end` of another."""

    begin: int
    end: int
    weights: Tensor


class _Strips:
    """A function of pixels, and the maps whose rows it is applied to."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        gradient: Callable[..., Sequence[Tensor]] | None,
        maps: Sequence[Upsampled],
        along: Sequence[Tensor],
    ) -> None:
        self.function, self.gradient, self.maps = function, gradient, maps
        self.along = [each.transpose(0, 1) for each in along]  # (H, N, W)
        assert maps[0].size is not None, "checked by the caller"
        self.size = maps[0].size

    def places(self) -> Iterator[tuple[int, int]]:
        """The strips from top to bottom: first row, and the one after the last."""
        coarse = self.maps[0].coarse
        most = _STRIP_VALUES.get(coarse.device.type, _STRIP_VALUES_ELSEWHERE)
        step = max(1, most // max(1, coarse.shape[0] * coarse.shape[1] * self.size[1]))
        for first in range(0, self.size[0], step):
            yield first, min(first + step, self.size[0])

    def of(self, first: int, last: int) -> Tensor:
        """The function of a strip: (rows, N, W) or (rows, N, K, W)."""
        made = self.function(*self._logits(first, last), *self._beside(first, last))
        return made.unflatten(0, (last - first, -1))

    def learn(self, first: int, last: int, arriving: Tensor, sums: Sequence[Tensor | None]) -> None:
        """Adds the gradients of a strip to `sums`, those of the `wide` maps, where there are any.

        arriving: (rows, N, ...), the gradient of what `of` has returned"""
        strip, arriving = self._logits(first, last), arriving.flatten(0, 1)
        found: Sequence[Tensor | None]
        if self.gradient is not None:
            found = self.gradient(*strip, *self._beside(first, last), arriving)
        else:
            for logits in strip:
                logits.requires_grad_()
            with torch.enable_grad():
                made = self.function(*strip, *self._beside(first, last))
            found = torch.autograd.grad(made, strip, arriving.to(made.dtype), allow_unused=True)
        for each, total, gradient in zip(self.maps, sums, found, strict=True):
            if total is not None and gradient is not None:
                rows = each.rows(first, last)
                total[rows.begin : rows.end].flatten(1).addmm_(
                    rows.weights.t(), gradient.reshape(last - first, -1)
                )

    def _logits(self, first: int, last: int) -> list[Tensor]:
        """The logits (rows * N, C, W) float32 of a strip."""
        found = []
        for each in self.maps:
            wide, rows = each.wide(), each.rows(first, last)
            made = rows.weights @ wide[rows.begin : rows.end].flatten(1)
            found.append(made.view(-1, *wide.shape[2:]))
        return found

    def _beside(self, first: int, last: int) -> Iterator[Tensor]:
        return (each[first:last].flatten(0, 1) for each in self.along)


class _PerPixel(torch.autograd.Function):
    """See `per_pixel`."""

    @staticmethod
    def forward(ctx: Any, strips: _Strips, *coarse: Tensor) -> Tensor:  # noqa: ANN401
        ctx.strips = strips
        found: Tensor | None = None
        with _full_precision(coarse[0]):
            for first, last in strips.places():
                made = strips.of(first, last)
                if found is None:
                    found = _empty(made, strips.size)
                _rows_of(found)[first:last] = made
        assert found is not None, "a map has rows"
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, arriving: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        strips: _Strips = ctx.strips
        sums = [
            torch.zeros_like(each.wide()) if wanted else None
            for each, wanted in zip(strips.maps, ctx.needs_input_grad[1:], strict=True)
        ]
        with _full_precision(arriving):
            for first, last in strips.places():
                strips.learn(first, last, _rows_of(arriving)[first:last], sums)
            return None, *(
                None if total is None else each.to_coarse(total)
                for each, total in zip(strips.maps, sums, strict=True)
            )


def _full_precision(tensor: Tensor) -> torch.autocast:
    return torch.autocast(tensor.device.type, enabled=False)


def _empty(made: Tensor, size: Size) -> Tensor:
    """Room for the whole map of strips like `made` (rows, N, W) or (rows, N, K, W)."""
    images, *channels = made.shape[1:-1]
    order = torch.channels_last if channels else torch.contiguous_format
    shape = (images, *channels, *size)
    return torch.empty(shape, dtype=made.dtype, device=made.device, memory_format=order)


def _rows_of(whole: Tensor) -> Tensor:
    """A map (N, H, W) or (N, K, H, W) with its rows first, a view: (H, N, W) or (H, N, K, W)."""
    return whole.movedim(-2, 0)


@lru_cache(maxsize=64)
def _across(old: int, new: int, align_corners: bool, device: torch.device) -> Tensor:
    """The weights (new, old) float32 of `old` values in each of `new`."""
    return torch.from_numpy(_bilinear(old, new, align_corners)).to(device)


@lru_cache(maxsize=4096)
def _rows(
    first: int, last: int, old: int, new: int, align_corners: bool, device: torch.device
) -> _Rows:
    weights = _bilinear(old, new, align_corners)[first:last]
    used = np.flatnonzero(weights.any(axis=0))
    begin, end = int(used[0]), int(used[-1]) + 1
    part = np.ascontiguousarray(weights[:, begin:end])
    return _Rows(begin, end, torch.from_numpy(part).to(device))


@lru_cache(maxsize=64)
def _bilinear(old: int, new: int, align_corners: bool) -> npt.NDArray[np.float32]:
    """The weights (new, old) of `old` values in each of `new`, as in PyTorch."""
    index = np.arange(new, dtype=np.float32)
    if align_corners:
        places = index * np.float32((old - 1) / max(new - 1, 1))
    else:
        places = (index + np.float32(0.5)) * np.float32(old / new) - np.float32(0.5)
    places = places.clip(min=0)
    lower = places.astype(np.int64).clip(max=old - 1)
    share = places - lower.astype(np.float32)
    weights = np.zeros((new, old), np.float32)
    each = np.arange(new)
    weights[each, lower] += 1 - share
    weights[each, (lower + 1).clip(max=old - 1)] += share
    return weights
