"""Losses that bear wrong labels."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.distributed import mean_over_ranks

_LOG_OF_ZERO = math.log(1e-4)  # in place of the logarithm of a label's zeros: -9.21034


def symmetric_cross_entropy(
    logits: Tensor, labels: Tensor, *, forward: float = 0.1, reverse: float = 1.0
) -> Tensor:
    """forward * CE + reverse * RCE in nats, averaged over the labeled pixels.

    RCE is the cross-entropy of the label under the prediction's weights: of a hard label y,
    9.21034 * (1 - p_y). logits: (N, C, H, W) float; labels: (N, H, W) int64, 255 ignored.
    Source: Wang et al., ICCV 2019, arXiv 1908.06112; the factors and log 1e-4 are ProDA's.
    """
    log_own = -F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="none")
    labeled = labels != IGNORE_INDEX
    missed = -torch.expm1(log_own)  # 1 - p_y, and 0 where ignored
    losses = -forward * log_own - reverse * _LOG_OF_ZERO * missed
    total = mean_over_ranks(labeled.sum())
    return losses.sum() / torch.where(total > 0, total, 1)


def spread(logits: Tensor) -> Tensor:
    """The mean over pixels and classes of -log p: least where all classes are as probable.

    Source: the regularizer MRKLD of Zou et al., CRST, ICCV 2019, arXiv 1908.09822.
    """
    return -F.log_softmax(logits.float(), dim=1).mean()


def labels_where(valid: Tensor | None, labels: Tensor) -> Tensor:
    """Labels (N, h, w) int64, 255 where the nearest pixel of `valid` (N, H, W) bool is false."""
    if valid is None:
        return labels
    small = F.interpolate(valid[:, None].float(), labels.shape[1:], mode="nearest-exact")[:, 0]
    return torch.where(small > 0, labels, IGNORE_INDEX)
