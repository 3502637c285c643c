"""Atrous spatial pyramid pooling on the deepest feature map, as in DeepLabV3.

Source: Chen et al., arXiv 1706.05587.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from uda.models.decoders.base import (
    DecoderConfig,
    HeadNorm,
    check_channels,
    check_norm,
    check_rates,
)
from uda.models.decoders.heads import initialize_heads
from uda.models.decoders.pyramid_pooling import PyramidPooling, dilations
from uda.models.encoders.base import FeatureMaps, FeatureShapes


@dataclass(kw_only=True, slots=True)
class AsppConfig(DecoderConfig):
    """Settings of `Aspp`."""

    channels: int = 256
    rates: tuple[int, ...] = ()  # dilations; empty: 6, 12, 18 at stride 16, in proportion at others
    norm: HeadNorm = "group"  # see DeepLabV3PlusConfig.head_norm
    separable: bool = False  # 3x3 convolutions per channel, then 1x1 across channels

    def check(self, maps: FeatureShapes) -> None:
        check_norm(self.norm)
        check_channels(channels=self.channels)
        check_rates(self.rates)

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "Aspp":
        pyramid = PyramidPooling(
            maps.channels[-1],
            self.channels,
            rates=self.rates or dilations(maps.strides[-1]),
            norm=self.norm,
            separable=self.separable,
            dropout=dropout,
            option="model.decoder.norm",
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
