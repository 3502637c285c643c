"""Losses of logits (N, C, H, W) against labels (N, H, W), with weights of pixels and classes.

Logits that are to be upsampled are never whole in memory: see `uda/models/upsampled.py`.

With several processes, N is the batch of one process; means, shares and counts are over all.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.labels.spaces import IGNORE_INDEX
from uda.models.segmenter import SegmentationOutput
from uda.models.upsampled import Logits, per_pixel
from uda.objectives.functional.hard_pixels import OhemConfig
from uda.utilities.distributed import mean_over_ranks, of_all_ranks, sum_over_ranks, world_size
from uda.utilities.errors import InputError

_DETAIL = 0.1  # share of a detail's loss
Denominator = Literal["labeled", "all"]  # the pixels that a loss is averaged over


def cross_entropy(
    logits: Logits,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    class_weights: Tensor | None = None,
    hardest: float | OhemConfig = 1.0,
    over: Denominator = "labeled",
) -> Tensor:
    """Cross-entropy in nats, averaged over the labeled pixels; exactly 0 when there are none.

    logits: (N, C, H, W) float.
    labels: (N, H, W) int64 train ids, 255 ignored.
    weights: broadcastable to (N, H, W), factor of each pixel's loss. They are not in the
        denominator: halving them halves the loss.
    class_weights: (C,), factor of each class; the average is then over the class weights of the
        labeled pixels, as in torch.nn.CrossEntropyLoss.
    hardest: fraction of all pixels of the batch that count, those with the highest class-weighted
        loss; the others are as if they had no label. Ignored pixels take part with loss 0, so a
        batch with more of them than `1 - hardest` keeps every labeled pixel. An OhemConfig chooses
        the pixels that count by their confidence instead.
    over: "all": the average is over all pixels; ignored ones have loss 0 (DACS's mixed images, and
        every loss of DAFormer).
    Raises InputError when `hardest` is not a fraction.
    Source of `hardest`: layumi/Seg-Uncertainty@6fce9ea, option --only-hard-label (80 there is 0.2).
    """
    losses = _pixel_losses(logits, labels, class_weights)
    if hardest != 1:
        easy = (
            hardest.easy(losses.detach())
            if isinstance(hardest, OhemConfig)
            else _easy_pixels(losses.detach(), hardest)
        )
        losses = losses.masked_fill(easy, 0)
        labels = labels.masked_fill(easy, IGNORE_INDEX)
    if weights is not None:
        # expand_as refuses (N, 1, H, W), which plain broadcasting would turn into (N, N, H, W).
        losses = losses * weights.expand_as(losses)
    if over == "all":  # on every rank as many pixels
        return losses.sum() / labels.numel()
    # The mean of the ranks' losses is then the loss of all their pixels.
    total = mean_over_ranks(_label_mass(labels, class_weights))
    return losses.sum() / torch.where(total > 0, total, 1)


def segmentation_loss(
    output: SegmentationOutput,
    labels: Tensor,
    *,
    weights: Tensor | None = None,
    class_weights: Tensor | None = None,
    hardest: float | OhemConfig = 1.0,
    over: Denominator = "labeled",
) -> Tensor:
    """`cross_entropy` of a network's main logits. Where the network has also looked at a detail
    (HRDA), 0.9 of it plus 0.1 of that of the detail's logits on the detail's pixels.

    Source of the shares: Hoyer et al., arXiv 2204.13132, section 3.2.
    """
    loss = cross_entropy(
        output.main,
        labels,
        weights=weights,
        class_weights=class_weights,
        hardest=hardest,
        over=over,
    )
    if output.detail is None or output.detail_box is None:
        return loss
    top, bottom, left, right = output.detail_box.tolist()
    inside = (..., slice(top, bottom), slice(left, right))
    detail = cross_entropy(
        output.detail,
        labels[inside],
        weights=None if weights is None else weights.expand_as(labels)[inside],
        class_weights=class_weights,
        hardest=hardest,
        over=over,
    )
    return (1 - _DETAIL) * loss + _DETAIL * detail


def _pixel_losses(logits: Logits, labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Cross-entropy (N, H, W) float32 of each pixel times its class weight, 0 where ignored."""

    def losses(logits: Tensor, labels: Tensor) -> Tensor:
        # No reduction here: on CUDA, the order of additions in torch's reduced loss is not fixed.
        return F.cross_entropy(
            logits.float(),
            labels,
            weight=class_weights,
            ignore_index=IGNORE_INDEX,
            reduction="none",
        )

    def gradient(logits: Tensor, labels: Tensor, arriving: Tensor) -> list[Tensor]:
        known = torch.where(labels == IGNORE_INDEX, 0, labels)
        weights = arriving.masked_fill(labels == IGNORE_INDEX, 0)
        weights = weights if class_weights is None else weights * class_weights[known]
        found = logits.softmax(dim=1).mul_(weights[:, None])
        return [found.scatter_add_(1, known[:, None], -weights[:, None])]

    return per_pixel(losses, logits, along=[labels], gradient=gradient)


def _label_mass(labels: Tensor, class_weights: Tensor | None) -> Tensor:
    """Number of labeled pixels, or the sum of their class weights, as a scalar tensor."""
    if class_weights is None:
        return (labels != IGNORE_INDEX).sum()
    table = F.pad(class_weights, (0, IGNORE_INDEX + 1 - len(class_weights)))
    return table[labels].sum()


def _easy_pixels(losses: Tensor, hardest: float) -> Tensor:
    """Where (N, H, W) the loss is below those of the `hardest` share of all pixels."""
    if not 0 <= hardest <= 1:
        raise InputError(f"hardest is {hardest}; allowed: a fraction of the pixels, 0 to 1")
    # The limit stays on the device: reading it would synchronize.
    return losses < _upper_quantile(of_all_ranks(losses.flatten()), hardest)


def _upper_quantile(values: Tensor, share: float) -> Tensor:
    """The value above which `share` of `values` (n,) lie, interpolated linearly; a scalar tensor.

    Equals numpy.percentile(values, 100 * (1 - share)). torch.quantile takes 16 million values at
    most, and torch.kthvalue selects with a single block of a GPU; torch.topk does neither.
    """
    position = (len(values) - 1) * (1 - share)  # in ascending order, between two of the values
    below = math.floor(position)
    upper = values.topk(len(values) - below, sorted=False).values
    neighbors = upper.topk(min(2, len(upper)), largest=False).values
    return torch.lerp(neighbors[0], neighbors[-1], position - below)


class ClassBalance(nn.Module):
    """Class weights of a step, high for classes that are rare or absent in its labels.

    A class is rare with fewer than 4096 pixels per image; its weight is then 7 instead of 1. The
    second factor is a moving average of 7 in steps without the class and 1 in steps with it: a
    buffer, because a resumed run needs it to compute the same weights.
    Source: layumi/Seg-Uncertainty@6fce9ea, options --class-balance and --often-balance.
    """

    rarity: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        max_weight: float = 7.0,
        rare_below: int = 4096,  # pixels per image, whatever the crop size
        decay: float = 0.9,
    ) -> None:
        super().__init__()
        self.max_weight = max_weight
        self.rare_below = rare_below
        self.decay = decay
        self.register_buffer("rarity", torch.ones(num_classes))

    @torch.no_grad()
    def forward(self, labels: Tensor) -> Tensor:
        """Weights (C,) for `labels` (N, H, W) int64; each call moves the average by one step."""
        counts = sum_over_ranks(count_classes(labels, len(self.rarity)))
        self.rarity.lerp_(self._weight_where(counts == 0), 1 - self.decay)
        rare_below = self.rare_below * len(labels) * world_size()
        return self._weight_where(counts < rare_below) * self.rarity

    def _weight_where(self, rare: Tensor) -> Tensor:
        return torch.where(rare, self.max_weight, 1.0).to(self.rarity)


def count_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Pixels (C,) int64 of each class. torch.bincount would synchronize with the device."""
    flat = labels.flatten()
    counts = flat.new_zeros(IGNORE_INDEX + 1)
    return counts.scatter_add_(0, flat, torch.ones_like(flat))[:num_classes]


def kl_to_reference(logits: Tensor, reference: Tensor) -> Tensor:
    """KL(reference || softmax(logits)) in nats, averaged over the pixels.

    logits: (N, C, H, W) float.
    reference: (N, C, H, W) float32 probabilities, without gradient.
    """
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    divergence = F.kl_div(log_probabilities, reference.detach(), reduction="sum")
    return divergence * (logits.shape[1] / logits.numel())


def kl_to_prediction(logits: Logits, reference_logits: Logits) -> Tensor:
    """KL(softmax(reference_logits) || softmax(logits)) in nats, averaged over the pixels, without
    gradient to the reference.

    logits, reference_logits: (N, C, H, W) float.
    """

    def divergence(logits: Tensor, reference_logits: Tensor) -> Tensor:
        return _divergence(logits, reference_logits.detach())

    return per_pixel(divergence, logits, reference_logits).mean()


def _divergence(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(softmax(reference_logits) || softmax(logits)) of each pixel, with gradients to both;
    classes are dimension 1."""
    log_reference = F.log_softmax(reference_logits.float(), dim=1)
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    # Not F.kl_div: its gradient for the first argument of KL is NaN where a probability underflows.
    return (log_reference.exp() * (log_reference - log_probabilities)).sum(dim=1)


def memory_regularization(main_logits: Logits, auxiliary_logits: Logits) -> Tensor:
    """KL(q || main) + KL(q || auxiliary) in nats, averaged over the pixels.

    main_logits, auxiliary_logits: (N, C, H, W) float. The reference q is the fused
    prediction, softmax(0.5 * auxiliary + main), without gradient.
    Source: Zheng and Yang, "Unsupervised scene adaptation with memory regularization in vivo",
    arXiv:1912.11164, there with weight 0.1.
    """

    def divergences(main: Tensor, auxiliary: Tensor) -> Tensor:
        fused = main.detach().float() + 0.5 * auxiliary.detach().float()
        return _divergence(main, fused) + _divergence(auxiliary, fused)

    def gradient(main: Tensor, auxiliary: Tensor, arriving: Tensor) -> list[Tensor]:
        fused = torch.add(main, auxiliary, alpha=0.5).softmax(dim=1)
        heads = main.softmax(dim=1), auxiliary.softmax(dim=1)
        return [head.sub_(fused).mul_(arriving[:, None]) for head in heads]

    return per_pixel(divergences, main_logits, auxiliary_logits, gradient=gradient).mean()


def entropy(
    logits: Logits,
    *,
    certainty: bool = False,
    share: bool = False,
    charbonnier: float | None = None,
) -> Tensor:
    """Entropy of softmax(logits), averaged over the pixels, in nats: 0 to log C.

    logits: (N, C, H, W) float.
    certainty: weigh each pixel's entropy by the sum of its squared probabilities, 1 / C to 1,
        without gradient, so that confident pixels count most.
    share: in shares of log C, 0 to 1, as ADVENT and FDA (arXiv 1811.12833, 2004.05498) have it.
    charbonnier: the exponent eta of FDA's penalty (e^2 + 1e-8)^eta of each pixel's entropy e, with
        the constant of its code; above 1/2, uncertain pixels count more than in a plain mean.
    """

    def entropies(logits: Tensor) -> Tensor:
        log_probabilities = F.log_softmax(logits.float(), dim=1)
        probabilities = log_probabilities.exp()
        found = -(probabilities * log_probabilities).sum(dim=1)
        if share:
            found = found / math.log(logits.shape[1])
        if charbonnier is not None:
            found = (found.square() + 1e-8) ** charbonnier
        if certainty:
            found = found * probabilities.detach().square().sum(dim=1)
        return found

    return per_pixel(entropies, logits).mean()


def rectified_cross_entropy(
    logits: Logits,
    labels: Tensor,
    *,
    other_logits: Logits,
    class_weights: Tensor | None = None,
) -> Tensor:
    """mean(cross-entropy * exp(-V)) + mean(V), in nats, over all pixels, ignored ones included.

    V of a pixel is KL(softmax(other_logits) || softmax(logits)): where the heads disagree,
    the label may be wrong and the loss counts less. The gradient flows through both heads.
    logits, other_logits: (N, C, H, W) float.
    labels: (N, H, W) int64 train ids; the cross-entropy is 0 where they are 255.
    class_weights: (C,), factor of each class's cross-entropy, not in the denominator.
    Source: Zheng and Yang, "Rectifying Pseudo Label Learning via Uncertainty Estimation", IJCV
    2021, arXiv:2003.03773.
    """
    disagreement = per_pixel(_divergence, logits, other_logits)
    losses = _pixel_losses(logits, labels, class_weights)
    return (losses * torch.exp(-disagreement)).mean() + disagreement.mean()
