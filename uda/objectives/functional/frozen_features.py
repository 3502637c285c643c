"""Features of a frozen network, and how far a student's are from them.

Source: VFM-UDA++ (Englert et al., arXiv 2503.10685), its code at effbb03b.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.heads import resized
from uda.models.decoders.vfm_uda import ChannelNorm
from uda.models.segmenter import Segmenter

_WIDER = 4  # the projector's inner channels, as a multiple of the student's


def projector(inputs: int, outputs: int) -> nn.Sequential:
    """Two 1x1 convolutions from a student's channels to those of other features."""
    inner = _WIDER * inputs
    return nn.Sequential(
        nn.Conv2d(inputs, inner, kernel_size=1),
        ChannelNorm(inner, eps=1e-6),
        nn.GELU(),
        nn.Conv2d(inner, outputs, kernel_size=1),
    )


@torch.no_grad()
def deepest(network: Segmenter) -> int:
    """The channels of a network's deepest features."""
    training, device = network.training, next(network.parameters()).device
    features = network.eval().coarse(torch.zeros(1, 3, 64, 64, device=device)).features
    network.train(training)
    return features.shape[1]


def distance(found: Tensor, wanted: Tensor, *, cosine: float) -> Tensor:
    """(1 - cosine) * smooth L1 + cosine * (1 - cosine similarity over channels), averaged.

    found: (N, D, H, W) float, which is resized to the height and width of `wanted`, (N, D, h, w)
    """
    found = resized(found.float(), like=wanted)
    smooth = F.smooth_l1_loss(found, wanted)
    angle = 1 - F.cosine_similarity(found, wanted, dim=1).mean()
    return (1 - cosine) * smooth + cosine * angle
