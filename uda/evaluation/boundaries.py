"""Boundary IoU: the IoU of the pixels near edges, where large areas do not hide errors.

Cheng et al., CVPR 2021, arXiv 2103.16562. The pixels of a class that count are those within a
distance d of a pixel of another class or of the image's border: those that d erosions of its mask
by a 3x3 square would remove. They are found for all classes at once, as the pixels around which a
window of 2d + 1 pixels has more than one class.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from uda.evaluation.metrics import ConfusionMatrix
from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.errors import require

DEFAULT_RATIO = 0.005  # of the image's diagonal: the authors' distance for Cityscapes

_MOST_CLASSES = 253  # so that id + 1 and 255 - id are bytes, and 255 is free for the border


def boundary_distance(size: tuple[int, int], ratio: float) -> int:
    """How many pixels a boundary region is wide: `ratio` of the diagonal of `size`, 1 at least."""
    height, width = size
    return max(1, round(ratio * math.sqrt(height**2 + width**2)))


def boundary_definition(ratio: float) -> str:
    """What boundary scores are, in one sentence, to be published with them."""
    return (
        f"mean boundary IoU (Cheng et al., CVPR 2021): IoU of the pixels within {ratio:g} of the "
        "image's diagonal of another class or of the image's border, found in labels and "
        "predictions each for itself; ignored pixels are neither counted nor an edge"
    )


def to_boundaries(labels: Tensor, ignored: Tensor, *, distance: int, interior: int) -> Tensor:
    """`labels` (..., H, W) with `interior` at every pixel that is not near an edge.

    An edge is the image's border or a pixel of another class; near means at most `distance` pixels
    away, diagonals included. labels: integers 0..252, anything where `ignored`, which is bool of
    the same shape. Ignored pixels are not an edge, and keep their values.
    """
    ids = labels.to(torch.uint8)
    highest = _window_max(torch.where(ignored, 0, ids + 1), distance, outside=255) - 1
    lowest = 255 - _window_max(torch.where(ignored, 0, 255 - ids), distance, outside=0)
    return torch.where((highest != lowest) | ignored, labels, interior)


class BoundaryMatrix(ConfusionMatrix):
    """Counts of pixels by label and prediction; pixels that are not near an edge are the rest.

    `scores` turns it into boundary scores: a pixel near an edge of its class in the labels only, or
    in the predictions only, is in the class's union.
    """

    def __init__(
        self, num_classes: int, ratio: float, *, device: torch.device | None = None
    ) -> None:
        """Edges are `ratio` of the image's diagonal wide; InputError unless it is in 0..1."""
        require(0 < ratio <= 1, f"a boundary ratio of {ratio:g}; allowed: above 0, at most 1")
        require(
            num_classes < _MOST_CLASSES,
            f"boundaries of {num_classes} classes; allowed: fewer than {_MOST_CLASSES}",
        )
        super().__init__(num_classes + 1, device=device)
        self.ratio = ratio

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Counts the pixels near edges, both (N, H, W) integers of num_classes classes.

        Predictions may be num_classes, for "no class": an edge for its neighbors and a miss
        itself. Raises InputError as ConfusionMatrix does.
        """
        self._check(predictions, labels)
        height, width = labels.shape[-2:]
        distance = boundary_distance((height, width), self.ratio)
        ignored = labels == IGNORE_INDEX
        edges = (
            to_boundaries(ids, ignored, distance=distance, interior=self.num_classes - 1)
            for ids in (predictions, labels)
        )
        super().update(*edges)


def _window_max(values: Tensor, distance: int, *, outside: int) -> Tensor:
    """The largest of (..., H, W) uint8 at most `distance` pixels away, diagonals included, of the
    same shape; beyond the border every value is `outside`."""
    padded = F.pad(values, (distance,) * 4, value=outside)
    return _running_max(_running_max(padded, 2 * distance + 1, dim=-1), 2 * distance + 1, dim=-2)


def _running_max(values: Tensor, window: int, *, dim: int) -> Tensor:
    """The largest of `window` neighbors along `dim`, which gets window - 1 shorter.

    Two adjacent or overlapping windows make a longer one, so a few steps are enough for any length:
    tens of times faster than max_pool2d, which reads every neighbor.
    """
    length = 1
    while length < window:
        step = min(length, window - length)
        rest = values.shape[dim] - step
        values = torch.maximum(values.narrow(dim, 0, rest), values.narrow(dim, step, rest))
        length += step
    return values
