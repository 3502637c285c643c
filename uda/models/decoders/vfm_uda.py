"""The decoder of VFM-UDA: two steps up from the tokens of a plain vision transformer.

Source: Englert et al., CVPRW 2024, arXiv 2406.09896, and tue-mps/vfm-uda@e154d8f5.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require

_EPS = 1e-6
_CLASSIFIER_STD = 0.1


@dataclass(kw_only=True, slots=True)
class VfmUdaConfig(DecoderConfig):
    """Settings of `VfmUda`: it has none. The original has no dropout: model.dropout=0."""

    def check(self, maps: FeatureShapes) -> None:
        require(
            maps.channels[-1] % 4 == 0,
            f"the decoder halves the channels twice, and the deepest map has {maps.channels[-1]}; "
            "allowed: multiples of 4",
        )

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "VfmUda":
        return VfmUda(maps.channels[-1], num_classes, dropout=dropout)


class VfmUda(nn.Module):
    """Two transposed convolutions, a 3x3 convolution and a classifier, none with a bias, on the
    deepest map; parameters are named as in the original's files."""

    def __init__(self, channels: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.upscale = nn.Sequential(
            nn.ConvTranspose2d(channels, half, kernel_size=2, stride=2, bias=False),
            ChannelNorm(half, eps=_EPS),
            nn.GELU(),
            nn.ConvTranspose2d(half, quarter, kernel_size=2, stride=2, bias=False),
            ChannelNorm(quarter, eps=_EPS),
            nn.Conv2d(quarter, quarter, kernel_size=3, padding=1, bias=False),
            ChannelNorm(quarter, eps=_EPS),
        )
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(quarter, num_classes, kernel_size=1, bias=False)
        nn.init.normal_(self.out.weight, std=_CLASSIFIER_STD)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at a quarter of the deepest map's stride."""
        return self.out(self.dropout(self.upscale(features[-1])))


class ChannelNorm(nn.LayerNorm):
    """Layer normalization over the channels of each pixel of (N, C, H, W)."""

    def forward(self, features: Tensor) -> Tensor:
        last = features.permute(0, 2, 3, 1)
        return F.layer_norm(last, self.normalized_shape, self.weight, self.bias, self.eps).permute(
            0, 3, 1, 2
        )
