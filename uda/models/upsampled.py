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

Size = tuple[int, int]

# Numbers in a strip, of all classes and images. On a CPU it stays in a core's cache; elsewhere, the
# number of kernels counts, and a strip is for the memory.
_STRIP_VALUES = {"cpu": 2**17}
_STRIP_VALUES_ELSEWHERE = 2**24


class Upsampled:
    """Bilinearly upsampled logits (N, C, H, W), of which only those at stride are in memory."""

    def __init__(self, coarse: Tensor, size: Size | None, *, align_corners: bool = False) -> None:
        """coarse: (N, C, h, w) float; `size`: (H, W), None where they are not to be resized"""
        self.coarse, self.size, self.align_corners = coarse, size, align_corners
        self._whole: Tensor | None = None

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


Logits = Tensor | Upsampled  # (N, C, H, W)


def whole(logits: Logits) -> Tensor:
    """Logits as one tensor (N, C, H, W)."""
    return logits.whole() if isinstance(logits, Upsampled) else logits


def per_pixel(
    function: Callable[..., Tensor], *logits: Logits, along: Sequence[Tensor] = ()
) -> Tensor:
    """`function` of logits and of maps `along` them, pixel by pixel: (N, H, W) or (N, K, H, W),
    with gradients to the logits.

    function: of as many logits (M, C, ...) float and maps (M, ...) as there are, to (M, ...) or
        (M, K, ...); what it returns for a pixel must depend on that pixel alone
    along: (N, H, W) or (1, H, W) each, such as labels; no gradient flows to them

    Upsampled logits exist for a few rows at a time only: `function` is called for these, and called
    again for their gradients. So it must not be random, and its result has no second derivative.
    """
    maps = [each for each in logits if isinstance(each, Upsampled) and each.size is not None]
    if len(maps) < len(logits) or len({(each.size, each.coarse.dtype) for each in maps}) > 1:
        return function(*map(whole, logits), *along)
    pixelwise = _Strips(
        function, maps, [each.expand(len(maps[0].coarse), *each.shape[1:]) for each in along]
    )
    found: Tensor = _PerPixel.apply(pixelwise, *(each.coarse for each in maps))
    return found


class _Rows(NamedTuple):
    """Rows of a map, and what they are made of: `weights` (last - first, end - begin) times rows
    `begin` to `end` of the coarse map."""

    first: int
    last: int
    begin: int
    end: int
    weights: Tensor


class _Strips:
    """A function of pixels, and the maps whose rows it is applied to. Rows come first in what is
    made of these, (H, N, C, W), so that a strip is a product of two matrices."""

    def __init__(
        self,
        function: Callable[..., Tensor],
        maps: Sequence[Upsampled],
        along: Sequence[Tensor],
    ) -> None:
        self.function = function
        self.align_corners = [each.align_corners for each in maps]
        size = maps[0].size
        assert size is not None, "checked by the caller"
        self.size = size
        self.along = [each.transpose(0, 1) for each in along]  # (H, N, W)

    def wide(self, coarse: Tensor, align_corners: bool) -> Tensor:
        """(h, N, C, W) float32 of a map (N, C, h, w): its rows upsampled, not yet its columns."""
        across = _across(coarse.shape[3], self.size[1], align_corners, coarse.device)
        return coarse.detach().float().permute(2, 0, 1, 3) @ across.t()

    def coarse(self, wide: Tensor, shape: torch.Size, align_corners: bool) -> Tensor:
        """The gradient (N, C, h, w) of a map from that of its `wide` rows."""
        across = _across(shape[3], self.size[1], align_corners, wide.device)
        return (wide @ across).permute(1, 2, 0, 3)

    def rows(self, coarse: Sequence[Tensor]) -> Iterator[list[_Rows]]:
        """The strips from top to bottom, and what they are of each map."""
        values = coarse[0].shape[0] * coarse[0].shape[1] * self.size[1]
        device = coarse[0].device
        most = _STRIP_VALUES.get(device.type, _STRIP_VALUES_ELSEWHERE)
        step = max(1, most // max(1, values))
        for first in range(0, self.size[0], step):
            last = min(first + step, self.size[0])
            yield [
                _rows(first, last, each.shape[2], self.size[0], aligned, device)
                for each, aligned in zip(coarse, self.align_corners, strict=True)
            ]

    def values(self, wide: Tensor, rows: _Rows) -> Tensor:
        """The logits ((last - first) * N, C, W) float32 of a strip."""
        made = rows.weights @ wide[rows.begin : rows.end].flatten(1)
        return made.view(-1, *wide.shape[2:])

    def of(self, strip: Sequence[Tensor], first: int, last: int) -> Tensor:
        """The function of the logits of a strip."""
        return self.function(*strip, *(each[first:last].flatten(0, 1) for each in self.along))


class _PerPixel(torch.autograd.Function):
    """See `per_pixel`."""

    @staticmethod
    def forward(ctx: Any, strips: _Strips, *coarse: Tensor) -> Tensor:  # noqa: ANN401
        ctx.strips = strips
        ctx.save_for_backward(*coarse)
        found: Tensor | None = None
        with _full_precision(coarse[0]):
            wide = [strips.wide(*of) for of in zip(coarse, strips.align_corners, strict=True)]
            for rows in strips.rows(coarse):
                first, last = rows[0].first, rows[0].last
                strip = [strips.values(*of) for of in zip(wide, rows, strict=True)]
                made = strips.of(strip, first, last).unflatten(0, (last - first, -1))
                if found is None:
                    found = _empty(made, strips.size)
                _rows_of(found)[first:last] = made
        assert found is not None, "a map has rows"
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        strips: _Strips = ctx.strips
        coarse: tuple[Tensor, ...] = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1:]
        arriving = _rows_of(gradients[0])
        with _full_precision(coarse[0]):
            wide = [strips.wide(*of) for of in zip(coarse, strips.align_corners, strict=True)]
            sums = [
                torch.zeros_like(w) if want else None for w, want in zip(wide, wanted, strict=True)
            ]
            for rows in strips.rows(coarse):
                first, last = rows[0].first, rows[0].last
                strip = [strips.values(*of) for of in zip(wide, rows, strict=True)]
                for values, want in zip(strip, wanted, strict=True):
                    values.requires_grad_(want)
                with torch.enable_grad():
                    made = strips.of(strip, first, last)
                found = torch.autograd.grad(
                    made,
                    [values for values in strip if values.requires_grad],
                    arriving[first:last].flatten(0, 1).to(made.dtype),
                )
                learned = [(s, r) for s, r in zip(sums, rows, strict=True) if s is not None]
                for (total, place), gradient in zip(learned, found, strict=True):
                    total[place.begin : place.end].flatten(1).addmm_(
                        place.weights.t(), gradient.view(last - first, -1)
                    )
            made_of = zip(sums, coarse, strips.align_corners, strict=True)
            return None, *(
                None if total is None else strips.coarse(total, of.shape, aligned).to(of.dtype)
                for total, of, aligned in made_of
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
    return _Rows(first, last, begin, end, torch.from_numpy(part).to(device))


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
