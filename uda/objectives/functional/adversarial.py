"""Losses between a segmentation network and the discriminator of its predictions.

Two published conventions differ in every constant; each discriminator carries its own, see
`AdversarialConvention`. With D the score maps, L(D, y) the mean over batch and pixels, s the source
label and the sum over scales:

    fool        = fool_factor * sum L(D(target), s)
    tell_apart  = tell_apart_factor * sum [L(D(source), s) + L(D(target), 1 - s)]

AdaptSegNet (Tsai et al., CVPR 2018, arXiv 1802.10349; wasidennis/AdaptSegNet@fca9ff0): s = 0, one
scale, factors 1 and 1/2. MRNet (Zheng and Yang, IJCAI 2020, arXiv 1912.11164;
layumi/Seg-Uncertainty@6fce9ea): s = 1, three scales, factors 2 and 1, least squares only, and a
gradient penalty.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.models.discriminators import (
    AdversarialConvention,
    Discriminator,
    HeadDiscriminators,
    Scores,
)
from uda.models.segmenter import SegmentationOutput
from uda.models.upsampled import Logits, Upsampled, per_pixel
from uda.utilities.errors import InputError

AdversarialKind = Literal["vanilla", "least_squares"]
DiscriminatorInput = Literal["softmax", "self_information"]
SourcePrediction = Literal["same_head", "fused"]


def seen_by_discriminators(logits: Logits, kind: DiscriminatorInput) -> Tensor:
    """What discriminators get of logits (N, C, H, W): as many channels.

    "softmax": probabilities p. "self_information": -p log p / log C of each class, 0 where p is 0
    or 1, at most 1 / (e log C); summed over the classes, it is the entropy as a share of log C.
    Under autocast they have its precision, as the first convolution reads them.
    Source of the latter: Vu et al., "ADVENT", CVPR 2019, arXiv 1811.12833, section 3.2.
    """
    return per_pixel(partial(_seen, kind, _precision(logits)), logits)


def _seen(kind: DiscriminatorInput, precision: torch.dtype | None, logits: Tensor) -> Tensor:
    if kind == "softmax":
        return logits.softmax(dim=1).to(precision)
    log_probabilities = F.log_softmax(logits.float(), dim=1)
    found = log_probabilities.exp() * log_probabilities / -math.log(logits.shape[1])
    return found.to(precision)


def _precision(logits: Logits) -> torch.dtype | None:
    """That of autocast where the logits are; None outside of it: that of the logits."""
    device = (logits.coarse if isinstance(logits, Upsampled) else logits).device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def target_inputs(
    output: SegmentationOutput, heads: Iterable[str], kind: DiscriminatorInput
) -> dict[str, Tensor]:
    """What each head's discriminator gets of the target: (N, C, H, W) of that head's logits."""
    return {head: seen_by_discriminators(_logits(output, head), kind) for head in heads}


@torch.no_grad()
def source_inputs(
    output: SegmentationOutput,
    heads: Iterable[str],
    kind: DiscriminatorInput,
    prediction: SourcePrediction,
) -> dict[str, Tensor]:
    """What each head's discriminator gets of the source, without gradient: (N, C, H, W) of that
    head's logits, or, "fused", of the logits main + 0.5 * auxiliary."""
    if prediction == "same_head":
        return target_inputs(output, heads, kind)

    main = _logits(output, "main")
    precision = _precision(main)

    def fused(main: Tensor, auxiliary: Tensor) -> Tensor:
        return _seen(kind, precision, main + 0.5 * auxiliary)

    seen = per_pixel(fused, main, _logits(output, "auxiliary"))
    # One tensor object per head, because the gradient penalty sets its requires_grad.
    return {head: seen.detach() for head in heads}


def _logits(output: SegmentationOutput, head: str) -> Upsampled:
    logits = output.main if head == "main" else output.auxiliary
    assert logits is not None, "checked by validate()"
    return logits


def fool_each(
    discriminators: HeadDiscriminators,
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, float],
    kind: AdversarialKind,
) -> dict[str, Tensor]:
    """`fool` of each head's discriminator, weighted; no gradient reaches the discriminators.

    inputs: those of the target, by head, see `target_inputs`
    """
    discriminators.requires_grad_(False)  # this loss trains the student only
    terms = {}
    for head, weight in weights.items():
        network = discriminators[head]
        terms[head] = weight * fool(network(inputs[head]), kind, network.convention)
    discriminators.requires_grad_(discriminators.trained)
    return terms


def fool(
    maps: Sequence[Tensor], kind: AdversarialKind, convention: AdversarialConvention
) -> Tensor:
    """Scalar: small where the discriminator takes target predictions for source predictions.

    maps: (N, 1, h, w) float each, raw scores of the target's probabilities, one per scale

    Raises InputError on an unknown `kind`.
    Source: the module's; "least_squares" is Mao et al., ICCV 2017, arXiv 1611.04076.
    """
    return convention.fool_factor * _distance(maps, convention.source_label, kind)


def tell_apart(
    source_maps: Sequence[Tensor],
    target_maps: Sequence[Tensor],
    kind: AdversarialKind,
    convention: AdversarialConvention,
) -> Tensor:
    """Scalar: small where the discriminator tells the domains apart.

    source_maps, target_maps: (N, 1, h, w) float each, raw scores of probabilities that were
    detached from the segmentation network, one per scale

    Raises InputError on an unknown `kind`.
    Source: as for `fool`.
    """
    source = _distance(source_maps, convention.source_label, kind)
    target = _distance(target_maps, 1.0 - convention.source_label, kind)
    return convention.tell_apart_factor * (source + target)


def boundary(kind: AdversarialKind) -> float:
    """The raw score above which a discriminator predicts 1: the one of probability 1/2 or, with
    least squares, the middle between the two labels."""
    return 0.0 if kind == "vanilla" else 0.5


def gradient_penalty(network: Discriminator, scores: Scores, inputs: Tensor) -> Tensor:
    """Scalar: the squared gradient of the scores at `inputs`, to be weighted and added to
    `tell_apart`.

    The squared norm of the gradient of each scale's summed scores, summed over scales, mean over
    the batch. It is differentiable in the discriminator's weights.

    scores: those of the discriminator `network` for `inputs`
    inputs: (N, C, H, W) float, the source's probabilities; must require gradients

    Raises ValueError when `inputs` does not require gradients.
    Source: Mescheder et al., ICML 2018, arXiv 1801.04406 (R1, without its 1/2), at the
    weight 0.01 in layumi/Seg-Uncertainty@6fce9ea.
    """
    if not inputs.requires_grad:
        raise ValueError(
            "inputs do not require gradients; allowed: the tensor the scores were computed from, "
            "after probabilities.detach().requires_grad_()"
        )
    precise = torch.promote_types(inputs.dtype, torch.float32)
    penalty = inputs.new_zeros((), dtype=precise)
    for scale, scores_of_scale in enumerate(scores.maps):
        (gradient,) = torch.autograd.grad(scores_of_scale.sum(), inputs, retain_graph=True)
        # With g the gradient and v its value, d(g.g) = 2 d(g.v), and g.v is the derivative of the
        # scores along v: one forward pass more, whose own gradient costs what any pass costs. The
        # gradient of a gradient takes several times as long. float16 has no room for small v.
        value = torch.linalg.vector_norm(gradient, dtype=precise).square()
        smallest = torch.finfo(gradient.dtype).tiny * torch.finfo(gradient.dtype).eps
        typical = (value / gradient.numel()).sqrt().to(gradient.dtype).clamp_min(smallest)
        direction = gradient / typical
        along = typical.to(precise) * network.slope(scale, direction, scores).to(precise).sum()
        penalty = penalty + value + 2 * (along - along.detach())
    return penalty / len(inputs)


def _distance(maps: Sequence[Tensor], label: float, kind: AdversarialKind) -> Tensor:
    """Mean distance of each map to `label`, summed over maps; float32 under autocast too."""
    match kind:
        case "vanilla":
            losses = [
                F.binary_cross_entropy_with_logits(m.float(), torch.full_like(m.float(), label))
                for m in maps
            ]
        case "least_squares":
            losses = [(m.float() - label).square().mean() for m in maps]
        case _:
            raise InputError(
                f"the adversarial loss is {kind!r}; allowed: {', '.join(get_args(AdversarialKind))}"
            )
    return torch.stack(losses).sum()
