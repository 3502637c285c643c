"""A generator on images of any size, in bounded memory and without seams.

Tiles that are translated one by one show their edges: instance norm has other statistics in each.
Here the layers are computed in strips of rows, each from as many rows of the layer below as its
kernels reach, and instance norm takes its statistics over the whole map. So the result is that of
the whole image, up to the rounding of float32.

What is kept are two maps at a quarter of the resolution, those of the residual blocks: 32 x width
bytes for each 4x4 pixels, 128 bytes per pixel with the usual width of 64. The maps at higher
resolution, 256 bytes per pixel and more, are computed again whenever a layer needs some rows.
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.translation.generators import (
    Blur,
    BlurredDouble,
    ResidualBlock,
    ResnetGenerator,
    blurred,
    from_tanh,
    padded,
    to_tanh,
)
from uda.utilities.errors import require

_KEPT = 4  # pixels per row: maps of this resolution are kept
_SMALLEST = 16  # rows in a strip; what it reaches beyond itself is about as much


class _Map(NamedTuple):
    """A map (N, C, height, W) whose rows are computed when somebody asks for them."""

    height: int
    strip: int  # rows that are computed at once
    scale: int  # rows of the image in one of these
    rows: Callable[[int, int], Tensor]  # from the first up to, not including, the last
    values: Tensor | None = None  # the whole, where it is kept

    def strips(self) -> Iterator[tuple[int, int]]:
        for first in range(0, self.height, self.strip):
            yield first, min(first + self.strip, self.height)


def check_strip(name: str, rows: int) -> None:
    """Raises InputError, beginning with `name`, when a strip has too few rows."""
    require(rows >= _SMALLEST, f"{name} {rows}: allowed are {_SMALLEST} or more")


@torch.no_grad()
def translated_in_strips(network: ResnetGenerator, images: Tensor, rows: int) -> Tensor:
    """What `network(images)` returns in evaluation mode, for images (N, 3, H, W), computed `rows`
    rows at a time."""
    check_strip("rows", rows)
    height, width = images.shape[-2:]
    image = padded(images)
    source = _Map(image.shape[2], rows, 1, lambda first, last: to_tanh(image[:, :, first:last]))
    spare: Tensor | None = None
    for layer in network.model:
        if isinstance(layer, ResidualBlock):
            source = _kept(source)
            spare = _add_block(layer, source, spare)
        else:
            spare = None
            source = _after(layer, source)
    result = torch.empty_like(images)
    for first, last in source.strips():
        strip = from_tanh(source.rows(first, last)[..., :width])
        result[:, :, first:last] = strip[:, :, : height - first]
    return result


def _after(layer: nn.Module, source: _Map) -> _Map:
    """The map that a layer makes of a map."""
    match layer:
        case nn.ReflectionPad2d(padding=(border, *_)):
            return _reflected(source, border)
        case nn.Conv2d():
            source = _surrounded_by_zeros(source, int(layer.padding[0]))
            weights = layer.weight, layer.bias
            return _sliding(
                source, lambda rows: F.conv2d(rows, *weights, layer.stride),
                kernel=layer.kernel_size[0], stride=layer.stride[0],
            )  # fmt: skip
        case Blur():
            return _sliding(_reflected(source, 1), blurred, kernel=3, stride=2)
        case nn.ConvTranspose2d():
            return _transposed(source, layer)
        case BlurredDouble():
            return _doubled(source, layer)
        case nn.InstanceNorm2d():
            return _normalized(source, layer.eps)
        case nn.ReLU() | nn.Tanh():  # in place: the rows that a norm has made are no others' rows
            return source._replace(
                rows=lambda first, last: layer(source.rows(first, last)), values=None
            )
        case nn.Dropout():
            return source
    raise AssertionError(f"{type(layer).__name__} is no layer of a generator")


def _kept(source: _Map, place: Tensor | None = None) -> _Map:
    """The map, computed now: in `place`, which may hold the map that it is computed from, when a
    strip needs no more than one row above and below itself of that."""
    if source.values is not None:
        return source
    waiting: deque[tuple[slice, Tensor]] = deque()
    for first, last in source.strips():
        strip = source.rows(first, last)
        if place is None:
            place = strip.new_empty(*strip.shape[:2], source.height, strip.shape[3])
        waiting.append((slice(first, last), strip))
        while len(waiting) > (last < source.height):  # the next strip reads what this one is from
            begun, ready = waiting.popleft()
            place[:, :, begun] = ready
    kept = place
    assert kept is not None, "a map has rows"
    return source._replace(rows=lambda first, last: kept[:, :, first:last], values=kept)


def _add_block(block: ResidualBlock, source: _Map, spare: Tensor | None) -> Tensor:
    """Adds to a kept map, in place, what the block makes of it. `spare`: a tensor of its shape,
    whose content is lost; such a one is returned."""
    branch = source
    for layer in block.conv_block:
        branch = _after(layer, branch)
        if isinstance(layer, nn.Conv2d):
            branch = _kept(branch, spare)
            spare = branch.values
    assert source.values is not None, "what enters a block is kept"
    assert spare is not None, "a block has convolutions"
    for first, last in source.strips():
        source.values[:, :, first:last] += branch.rows(first, last)
    return spare


def _reflected(source: _Map, border: int) -> _Map:
    height = source.height

    def rows(first: int, last: int) -> Tensor:
        wanted = [abs(row) for row in range(first - border, last - border)]
        wanted = [min(row, 2 * (height - 1) - row) for row in wanted]
        low, high = min(wanted), max(wanted) + 1
        values = source.rows(low, high)
        if len(wanted) > high - low:
            values = values[:, :, [row - low for row in wanted]]
        return F.pad(values, (border, border, 0, 0), mode="reflect")

    return source._replace(height=height + 2 * border, rows=rows, values=None)


def _surrounded_by_zeros(source: _Map, border: int) -> _Map:
    if not border:
        return source

    def rows(first: int, last: int) -> Tensor:
        first, last = first - border, last - border
        low, high = max(first, 0), min(last, source.height)
        return F.pad(source.rows(low, high), (border, border, low - first, last - high))

    return source._replace(height=source.height + 2 * border, rows=rows, values=None)


def _sliding(
    source: _Map, apply: Callable[[Tensor], Tensor], *, kernel: int, stride: int
) -> _Map:  # fmt: skip
    """What a kernel without a border of its own makes of the map."""
    return _Map(
        (source.height - kernel) // stride + 1,
        max(source.strip // stride, 1),
        source.scale * stride,
        lambda first, last: apply(source.rows(first * stride, (last - 1) * stride + kernel)),
    )


def _twice(source: _Map, rows: Callable[[int, int], Tensor]) -> _Map:
    return _Map(2 * source.height, 2 * source.strip, source.scale // 2, rows)


def _transposed(source: _Map, layer: nn.ConvTranspose2d) -> _Map:
    """Row r adds to the rows 2r - 1, 2r and 2r + 1."""

    def rows(first: int, last: int) -> Tensor:
        low, high = first // 2, min(last // 2 + 1, source.height)
        values = F.conv_transpose2d(
            source.rows(low, high), layer.weight, layer.bias, stride=2, padding=(0, 1),
            output_padding=(0, 1),
        )  # fmt: skip
        begin = first - (2 * low - 1)
        return values[:, :, begin : begin + last - first]

    return _twice(source, rows)


def _doubled(source: _Map, layer: BlurredDouble) -> _Map:
    def rows(first: int, last: int) -> Tensor:
        low, high = max(first // 2 - 1, 0), min((last - 1) // 2 + 2, source.height)
        values = layer(source.rows(low, high))
        begin = first - 2 * low
        found: Tensor = values[:, :, begin : begin + last - first]
        return found

    return _twice(source, rows)


def _normalized(source: _Map, eps: float) -> _Map:
    """Instance norm, with the statistics of the whole map, which this computes."""
    if source.scale == _KEPT:
        source = _kept(source)
    count = 0
    mean, variance = torch.zeros(2, dtype=torch.float64)
    for first, last in source.strips():
        strip = source.rows(first, last)
        own, added = strip.shape[2] * strip.shape[3], torch.var_mean(strip, (2, 3), correction=0)
        of_own, by = added[1].double() - mean, own / (count + own)
        variance = (1 - by) * variance + by * added[0].double() + by * (1 - by) * of_own**2
        mean, count = mean + by * of_own, count + own
    scale = (variance + eps).rsqrt()

    def rows(first: int, last: int) -> Tensor:
        values = source.rows(first, last)
        return (values - mean.to(values)[..., None, None]).mul_(scale.to(values)[..., None, None])

    return source._replace(rows=rows, values=None)
