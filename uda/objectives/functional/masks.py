"""One mask per class of an image, and means over masks of many images."""

import torch
from torch import Tensor

from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.distributed import mean_over_ranks


def mean_by_mass(values: Tensor, masses: Tensor) -> Tensor:
    """The mean of `values` (N,) weighted by `masses` (N,), 0 or more; 0 if all masses are 0. The
    mean of this over all processes is the mean over all their images."""
    total = mean_over_ranks(masses.sum())
    return (values * masses).sum() / torch.where(total > 0, total, 1)


def masks_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes (K,) int64 of one image's labels (H, W), and the mask (K, H, W) float of each.
    Unlabeled pixels are in no mask."""
    classes = labels.unique().long()
    classes = classes[classes != IGNORE_INDEX]
    return classes, (labels[None] == classes[:, None, None]).float()
