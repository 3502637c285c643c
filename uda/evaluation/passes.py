"""What a network is shown of images, and its output at its own stride: a few parts at a time.

The parts of an image are, for each scale, the whole or its windows, and then those of the mirror
image. Those of equal size that follow one another, also of several images, share a forward pass.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from uda.evaluation.protocols import Protocol, Size, protocol_name
from uda.models.segmenter import Segmenter
from uda.utilities.errors import require


class Window(NamedTuple):
    """A part of an image that the network sees at once."""

    top: int
    left: int
    size: Size


def outputs_of(
    segmenter: Segmenter, images: Iterable[Sequence[Tensor]], protocol: Protocol
) -> Iterator[Tensor]:
    """(1, C, h, w) float32 at the network's stride for each part of each image, in order; computed
    when they are asked for, up to `protocol.batch` in advance.

    images: the views (3, h, w) uint8 RGB of each, one per scale
    """
    parts = (part for views in images for part in _parts(segmenter, views, protocol))
    for batch in _equal(parts, protocol.batch):
        together = torch.cat(batch) if len(batch) > 1 else batch[0]
        yield from coarse_logits(segmenter, together, protocol).split(1)


def _equal(parts: Iterable[Tensor], most: int) -> Iterator[list[Tensor]]:
    """Up to `most` parts of one size that follow one another."""
    batch: list[Tensor] = []
    for part in parts:
        if batch and part.shape != batch[0].shape:
            yield batch
            batch = []
        batch.append(part)
        if len(batch) == most:
            yield batch
            batch = []
    if batch:
        yield batch


def _parts(segmenter: Segmenter, views: Sequence[Tensor], protocol: Protocol) -> Iterator[Tensor]:
    """(1, 3, h, w) float in [0, 1], each part of an image."""
    device = next(segmenter.parameters()).device
    for image in views:
        pixels = image.to(device, non_blocking=True).float().div_(255)[None]
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        for mirrored in (False, True) if protocol.flip else (False,):
            seen = pixels.flip(3) if mirrored else pixels
            size = padded_size((seen.shape[2], seen.shape[3]), protocol)
            if protocol.pad_to is not None:
                seen = _padded(segmenter, seen, size)
            for top, left, (height, width) in windows(size, protocol):
                yield seen[:, :, top : top + height, left : left + width]


def padded_size(size: Size, protocol: Protocol) -> Size:
    """The size of an image of `size` once it is padded."""
    least = protocol.pad_to or size
    return max(size[0], least[0]), max(size[1], least[1])


def windows(size: Size, protocol: Protocol) -> list[Window]:
    """Of an image of `size`, row by row; one for the whole where the protocol has none."""
    height, width = (min(pair) for pair in zip(size, protocol.window or size, strict=True))
    tops = _window_starts(size[0], height, protocol.overlap)
    lefts = _window_starts(size[1], width, protocol.overlap)
    return [Window(top, left, (height, width)) for top, left in product(tops, lefts)]


def _window_starts(size: int, window: int, overlap: float) -> list[int]:
    """Where windows start along one side: evenly spaced, but the last one ends with the image."""
    stride = max(1, round(window * (1 - overlap)))
    last = max(0, size - window)
    return [*range(0, last, stride), last]


def _padded(segmenter: Segmenter, pixels: Tensor, size: Size) -> Tensor:
    """An image (1, 3, h, w) as large as `size` by rows below and columns to the right that the
    network normalizes to 0, as projects do that pad the normalized image."""
    height, width = pixels.shape[2:]
    zero = pixels.amin(dim=(2, 3), keepdim=True) if segmenter.min_max else segmenter.mean
    padded = zero.to(pixels.dtype).expand(1, 3, *size)
    padded = padded.clone(memory_format=torch.channels_last)
    padded[:, :, :height, :width] = pixels
    return padded


def coarse_logits(segmenter: Segmenter, pixels: Tensor, protocol: Protocol) -> Tensor:
    """(1, C, h, w) float32 at the network's stride, of the heads that the protocol wants."""
    reduced = protocol.precision == "bfloat16"
    with torch.autocast(pixels.device.type, torch.bfloat16, enabled=reduced):
        output = segmenter.coarse(pixels)
    logits = output.logits.float()
    if protocol.heads == "main":
        return logits
    check_heads(segmenter, protocol)
    assert output.auxiliary_logits is not None
    auxiliary = output.auxiliary_logits.float()
    if auxiliary.shape != logits.shape:
        auxiliary = F.interpolate(
            auxiliary, logits.shape[2:], mode="bilinear", align_corners=segmenter.align_corners
        )
    return logits + 0.5 * auxiliary


def check_heads(segmenter: Segmenter, protocol: Protocol) -> None:
    """Raises InputError when the protocol reads a head that the network does not have."""
    require(
        segmenter.has_auxiliary_head or protocol.heads == "main",
        f"protocol {protocol_name(protocol)} joins two heads, but this network has one: use "
        "protocol adaptsegnet or native (--protocol NAME)",
    )
