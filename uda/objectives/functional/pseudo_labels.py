"""Pseudo-labels: a network's predictions, used as labels of unlabeled images."""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from uda.utilities.distributed import mean_over_ranks

ConfidenceRule = Literal[
    "image_share", "batch_share", "pixel", "class_balanced", "instance_adaptive"
]


class PseudoLabels(NamedTuple):
    """The most probable class of each pixel, and its probability."""

    labels: Tensor  # (N, H, W) int64 train ids; every pixel has one
    confidence: Tensor  # (N, H, W) float, softmax probability of that class


@torch.no_grad()
def pseudo_label(logits: Tensor) -> PseudoLabels:
    """Pseudo-labels of logits (N, C, H, W) float, without gradient."""
    confidence, labels = torch.softmax(logits.float(), dim=1).max(dim=1)
    return PseudoLabels(labels=labels, confidence=confidence)


def confidence_weights(confidence: Tensor, threshold: float, rule: ConfidenceRule) -> Tensor:
    """Weights of pseudo-labeled pixels from their confidence (N, H, W) float.

    "image_share": (N, 1, 1), the share of the image's pixels whose confidence reaches `threshold`.
    "batch_share": (N, 1, 1), one number, the share in the batch of all processes (Tranheden et al.,
    "DACS", WACV 2021, arXiv 2007.08702, as its authors ran it). "pixel": (N, H, W), 1 where the
    pixel reaches it and 0 elsewhere (Sohn et al., "FixMatch", NeurIPS 2020, arXiv 2001.07685).
    "class_balanced", "instance_adaptive": as "pixel"; confidence is then divided by the threshold
    of its class (see class_thresholds.py), and `threshold` is 1.
    """
    sure = (confidence >= threshold).float()
    if rule not in ("image_share", "batch_share"):
        return sure
    shares = sure.mean(dim=(1, 2), keepdim=True)
    return shares if rule == "image_share" else mean_over_ranks(shares.mean()).expand_as(shares)
