"""Atrous spatial pyramid pooling on the deepest feature map, as in DeepLabV3.

Source: Chen et al., arXiv 1706.05587.
"""

from dataclasses import dataclass
from typing import get_args

from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.decoders.heads import initialize_heads
from uda.models.decoders.pyramid_pooling import DILATIONS, HeadNorm, PyramidPooling
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class AsppConfig(DecoderConfig):
    """Settings of `Aspp`."""

    channels: int = 256
    rates: tuple[int, ...] = ()  # dilations; empty: 6, 12, 18 at stride 16, doubled at 8
    norm: HeadNorm = "group"  # see DeepLabV3PlusConfig.head_norm
    separable: bool = False  # 3x3 convolutions per channel, then 1x1 across channels

    def check(self, maps: FeatureShapes) -> None:
        norms = get_args(HeadNorm)
        require(
            self.norm in norms,
            f"model.decoder.norm is {self.norm!r}; allowed: {', '.join(norms)}",
        )
        require(
            self.channels >= 2,  # one channel, normalized over itself, is constant
            f"model.decoder.channels is {self.channels}; allowed: 2 or more",
        )
        require(
            all(rate >= 1 for rate in self.rates),
            f"model.decoder.rates is {self.rates}; allowed: dilations of 1 or more, or nothing "
            "for the defaults",
        )
        require(
            bool(self.rates) or maps.strides[-1] in DILATIONS,
            f"model.decoder.rates has defaults for a deepest map of stride 8 or 16, and this one "
            f"has {maps.strides[-1]}: use --set model.output_stride=16 or set the rates",
        )

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "Aspp":
        pyramid = PyramidPooling(
            maps.channels[-1],
            self.channels,
            rates=self.rates or DILATIONS[maps.strides[-1]],
            norm=self.norm,
            separable=self.separable,
            dropout=dropout,
        )
        return Aspp(pyramid, self.channels, num_classes)


class Aspp(nn.Module):
    """Atrous spatial pyramid pooling and a 1x1 classifier."""

    def __init__(self, pyramid: PyramidPooling, channels: int, num_classes: int) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)
        initialize_heads(self)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the deepest map.

        Raises InputError on a single image in training with norm="batch".
        """
        return self.classifier(self.pyramid(features[-1]))
