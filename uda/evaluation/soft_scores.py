"""IoU and F1 of probabilities instead of predicted classes, averaged over batches of images.

Networks trained with segmentation_models report them after an epoch (its `iou_score` and
`f1-score`). They differ by points from those of a data set's confusion matrix.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from uda.labels.spaces import IGNORE_INDEX

BATCH_SIZE = 8  # images, in the order of the data set; the last batch may have fewer
SMOOTH = 1e-5  # added to both sides of every ratio: an absent class scores 1
_LOWEST = 1e-7  # the loss clamps probabilities from below at this, as Keras does


class SoftScores(NamedTuple):
    """Means over batches, and the loss over all pixels."""

    iou: float  # a fraction
    f1: float  # a fraction
    loss: float  # cross-entropy in nats


def soft_sums(probabilities: Tensor, labels: Tensor) -> Tensor:
    """(3C + 2) float64 on the CPU: what an image, or a part of it, adds to its batch's scores.

    probabilities: (C, H, W) float; labels: (H, W) train ids, pixels of 255 are ignored.
    The sums are, by class: the probability where the class is labeled, the probability everywhere,
    and the labeled pixels; then the losses of all labeled pixels, and their number.
    """
    known = labels != IGNORE_INDEX
    masks = [labels == train_id for train_id in range(len(probabilities))]
    pairs = list(zip(probabilities, masks, strict=True))
    right = [torch.where(mask, values, 0).sum(dtype=torch.float64) for values, mask in pairs]
    everywhere = [torch.where(known, v, 0).sum(dtype=torch.float64) for v in probabilities]
    labeled = [mask.sum(dtype=torch.float64) for mask in masks]
    of_label = probabilities.gather(0, torch.where(known, labels, 0).long()[None])[0]
    losses = torch.where(known, -of_label.clamp(min=_LOWEST).log(), 0)
    totals = [losses.sum(dtype=torch.float64), known.sum(dtype=torch.float64)]
    return torch.stack([*right, *everywhere, *labeled, *totals]).cpu()


def soft_scores(sums: Tensor) -> SoftScores:
    """The scores of images (n, 3C + 2), `soft_sums` of each, n at least 1."""
    batches = torch.stack([batch.sum(dim=0) for batch in sums.split(BATCH_SIZE)])
    right, everywhere, labeled = batches[:, :-2].unflatten(1, (3, -1)).unbind(dim=1)
    iou = (right + SMOOTH) / (everywhere + labeled - right + SMOOTH)
    f1 = (2 * right + SMOOTH) / (everywhere + labeled + SMOOTH)
    loss, pixels = batches[:, -2:].sum(dim=0)
    # Every class of every batch has the same weight.
    return SoftScores(float(iou.mean()), float(f1.mean()), float(loss / pixels.clamp(min=1)))
