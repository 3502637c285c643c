"""Complementary dropout of channels, and boxes from the batch in reverse order.

Source: Yang et al., "UniMatch V2", arXiv 2410.10777, and LiheYoung/UniMatch-V2@f6afb4df.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from uda.utilities.distributed import of_all_ranks, rank, world_size

_TRIES = 100


def drop_channels(
    features: Sequence[Tensor],
    generators: Sequence[torch.Generator],
    whole: Tensor,
    *,
    complement: bool,
) -> tuple[Tensor, ...]:
    """The feature maps, each (N, D, h, w), with each channel of an image either 0 or doubled, by a
    coin; with `complement` the other way round. Maps with equally many channels share their coins.

    whole: (N,) bool on the CPU, images whose maps stay as they are. Generators in the same state
    make complements: the two factors of each channel add up to 2.
    """
    factors: dict[int, Tensor] = {}
    for channels in (feature.shape[1] for feature in features):
        if channels not in factors:
            coins = [torch.rand(channels, generator=generator) for generator in generators]
            kept = (torch.stack(coins) < 0.5) ^ complement
            factors[channels] = torch.where(whole[:, None], 1.0, 2.0 * kept)[:, :, None, None]
    return tuple(
        feature * factors[feature.shape[1]].to(feature.device, feature.dtype, non_blocking=True)
        for feature in features
    )


def chosen_images(count: int, share: float, generator: torch.Generator) -> Tensor:
    """Which (count,) bool of this rank's images are among int(share * all) random ones of the batch
    of all ranks; `generator` is in the same state on all."""
    total = count * world_size()
    chosen = torch.randperm(total, generator=generator) < int(share * total)
    return chosen[rank() * count : (rank() + 1) * count]


def reversed_batch(rows: Tensor) -> Tensor:
    """The rows (N, ...) of the batch of all ranks in reverse order, those of this rank's places:
    image i of B gets image B - 1 - i."""
    own = slice(rank() * len(rows), (rank() + 1) * len(rows))
    return of_all_ranks(rows).flip(0)[own]


def boxes(
    size: tuple[int, int],
    generators: Sequence[torch.Generator],
    *,
    chance: float,
    area: tuple[float, float],
    ratio: tuple[float, float],
) -> Tensor:
    """A box (N, H, W) bool in each image, on the CPU, with probability `chance`.

    Its share of the image's area and its ratio of height to width are uniform in `area` and
    `ratio`; ratio and place are drawn again until it lies within the image.
    """
    masks = torch.zeros(len(generators), *size, dtype=torch.bool)
    for mask, generator in zip(masks, generators, strict=True):
        draw = _between(generator)
        if draw(0, 1) >= chance:
            continue
        pixels = draw(*area) * size[0] * size[1]
        for _ in range(_TRIES):
            shape = draw(*ratio)
            height, width = int(math.sqrt(pixels * shape)), int(math.sqrt(pixels / shape))
            top, left = int(draw(0, size[0])), int(draw(0, size[1]))
            if top + height <= size[0] and left + width <= size[1]:
                mask[top : top + height, left : left + width] = True
                break
    return masks


def _between(generator: torch.Generator) -> Callable[[float, float], float]:
    def draw(low: float, high: float) -> float:
        number = torch.rand((), generator=generator, dtype=torch.float64).item()
        return low + (high - low) * number

    return draw
