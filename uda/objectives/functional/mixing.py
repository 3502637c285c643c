"""Mixing of two images and their labels: masks of pixels, and a function that pastes.

Nothing here changes its arguments: a paste in place would replace the clean batch by the mixed one.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.data.batch import Batch, View
from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.distributed import sum_over_ranks

Candidates = Literal["image", "image_and_void", "batch_and_void"]


def paste(pasted: Tensor, *, onto: Tensor, where: Tensor) -> Tensor:
    """`pasted` where the mask is true and `onto` elsewhere, as a new tensor.

    pasted, onto: both (N, 3, H, W) images or both (N, H, W) labels or weights.
    where: (N, H, W) bool.
    Raises ValueError when the shapes do not match.
    """
    pixels = (pasted.shape[0], *pasted.shape[-2:])
    if pasted.shape != onto.shape or where.shape != pixels:
        raise ValueError(
            f"paste {tuple(pasted.shape)} onto {tuple(onto.shape)} where {tuple(where.shape)}: "
            f"the first two must have one shape, and the mask {pixels}"
        )
    return torch.where(where.unsqueeze(1) if pasted.ndim == 4 else where, pasted, onto)


def half_of_classes(
    labels: Tensor, generators: Sequence[torch.Generator], candidates: Candidates = "image"
) -> Tensor:
    """A mask (N, H, W) bool of half the classes in each sample, chosen at random, rounded up.

    labels: (N, H, W) int64.
    generators: one per sample, on the CPU.
    candidates: "image": 255 is never chosen, and a sample without labels has an all-false mask.
        "image_and_void": 255 is one more class. "batch_and_void": half of the classes of the batch
        of all processes, 255 included, so that a sample may have all or none of its own chosen.
    Source: Olsson et al., "ClassMix", WACV 2021, arXiv:2007.07936; the rounding and
    "image_and_void" as in DACS, arXiv:2007.08702; "batch_and_void" as in DAFormer's code.
    """
    _check_one_per_sample(generators, len(labels))
    # All that follows stays on the device: reading the classes would synchronize.
    ids = IGNORE_INDEX + 1
    lots = torch.stack([torch.randperm(ids, generator=generator) for generator in generators])
    lots = lots.to(labels.device, non_blocking=True)
    present = torch.zeros_like(lots, dtype=torch.bool).scatter_(1, labels.flatten(1), True)
    if candidates == "image":
        present[:, IGNORE_INDEX] = False
    elif candidates == "batch_and_void":
        present = (sum_over_ranks(present.sum(dim=0)) > 0).expand_as(present)
    places = torch.where(present, lots, lots + ids).argsort(dim=1).argsort(dim=1)
    chosen = places < (present.sum(dim=1, keepdim=True) + 1) // 2
    return chosen.gather(1, labels.flatten(1)).view_as(labels)


def random_boxes(
    size: tuple[int, int],
    generators: Sequence[torch.Generator],
    *,
    device: torch.device | None = None,
) -> Tensor:
    """A mask (N, H, W) bool with one random box per sample, on `device` (default: the CPU).

    size: (height, width) in pixels. The box has the image's aspect ratio, a uniformly distributed
    area and a uniformly distributed center, and is cut off at the border: 31.9 % of the pixels
    on average.
    generators: one per sample, on the CPU.
    Source: Yun et al., "CutMix", ICCV 2019, arXiv:1905.04899, with Beta(1, 1).
    """
    boxes = torch.tensor([_random_box(size, generator) for generator in generators])
    top, bottom, left, right = boxes.to(device, non_blocking=True).T.unsqueeze(2)
    rows = torch.arange(size[0], device=device)
    columns = torch.arange(size[1], device=device)
    inside_rows = (rows >= top) & (rows < bottom)
    inside_columns = (columns >= left) & (columns < right)
    return inside_rows.unsqueeze(2) & inside_columns.unsqueeze(1)


def random_blocks(
    size: Sequence[int], generators: Sequence[torch.Generator], *, side: int, share: float
) -> Tensor:
    """A mask (N, H, W) bool whose blocks of `side` pixels, as many as come closest to the size, are
    each true with probability `share`; one generator on the CPU per sample.

    Source: Hoyer et al., "MIC", CVPR 2023, arXiv 2212.01322, equation (4).
    """
    cells = [max(round(pixels / side), 1) for pixels in size]
    drawn = torch.stack([torch.rand(*cells, generator=generator) for generator in generators])
    hidden = (drawn < share).float().unsqueeze(1)
    return F.interpolate(hidden, tuple(size), mode="nearest").squeeze(1).bool()


def mix_domains(
    batch: Batch, pseudo_labels: Tensor, *, name: str, from_source: Tensor, target_weights: Tensor
) -> View:
    """The view `name`: source pixels and labels where `from_source` (N, H, W) bool is true, target
    pixels and `pseudo_labels` (N, H, W) elsewhere.

    target_weights: (N, H, W) or (N, 1, 1) float, weight of the target's pixels; source's have 1.
    """
    return View(
        name=name,
        images=paste(batch.source_images, onto=batch.target_images, where=from_source),
        labels=paste(batch.source_labels, onto=pseudo_labels, where=from_source),
        weights=torch.where(from_source, 1.0, target_weights),
    )


def _random_box(size: tuple[int, int], generator: torch.Generator) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box in pixels; it may extend beyond the image."""
    kept, row, column = torch.rand(3, generator=generator, dtype=torch.float64).tolist()
    ratio = math.sqrt(1 - kept)  # of the box's sides to the image's; kept is the paper's lambda
    half_height, half_width = (int(side * ratio) // 2 for side in size)
    center_row, center_column = int(row * size[0]), int(column * size[1])
    return (
        center_row - half_height,
        center_row + half_height,
        center_column - half_width,
        center_column + half_width,
    )


def _check_one_per_sample(generators: Sequence[torch.Generator], samples: int) -> None:
    if len(generators) != samples:
        raise ValueError(f"{len(generators)} generators for {samples} samples: give one for each")
