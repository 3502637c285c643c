"""DeepLabV3+: atrous spatial pyramid pooling on the deepest feature map, refined by the finest.

Source: Chen et al., ECCV 2018, arXiv 1802.02611 (decoder); arXiv 1706.05587 (ASPP).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from uda.models.decoders.base import (
    DecoderConfig,
    HeadNorm,
    check_channels,
    check_norm,
    check_rates,
)
from uda.models.decoders.heads import initialize_heads, resized
from uda.models.decoders.pyramid_pooling import (
    PyramidPooling,
    convolution,
    dilations,
    separable_convolution,
)
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class DeepLabV3PlusDecoderConfig(DecoderConfig):
    """Settings of `DeepLabV3PlusDecoder`."""

    rates: tuple[int, ...] = ()  # dilations; empty: 6, 12, 18 at stride 16, in proportion at others
    pyramid_channels: int = 256
    low_level_channels: int = 48
    channels: int = 256  # of the convolutions before the classifier
    norm: HeadNorm = "group"  # see DeepLabV3PlusConfig.head_norm
    separable: bool = False  # 3x3 convolutions per channel, then 1x1 across channels
    projection: Literal[1, 3] = 1  # side of the kernel that joins the pyramid's branches
    align_corners: bool = False  # when the pyramid's output is resized

    def check(self, maps: FeatureShapes) -> None:
        check_norm(self.norm)
        check_channels(
            pyramid_channels=self.pyramid_channels,
            low_level_channels=self.low_level_channels,
            channels=self.channels,
        )
        check_rates(self.rates)
        require(
            self.projection in (1, 3),
            f"model.decoder.projection is {self.projection}; allowed: 1, 3",
        )
        require(
            maps.strides[0] < maps.strides[-1],
            f"it refines the deepest map by a finer one, and all maps have stride "
            f"{maps.strides[-1]}",
        )

    def build(
        self, maps: FeatureShapes, *, num_classes: int, dropout: float
    ) -> "DeepLabV3PlusDecoder":
        return DeepLabV3PlusDecoder(self, maps, num_classes, dropout=dropout)


class DeepLabV3PlusDecoder(nn.Module):
    """Pyramid pooling, resized and joined with the finest map, two 3x3 convolutions, a 1x1
    classifier."""

    def __init__(
        self,
        config: DeepLabV3PlusDecoderConfig,
        maps: FeatureShapes,
        num_classes: int,
        *,
        dropout: float,
        option: str = "model.decoder.norm",
    ) -> None:
        """`option`: the field that `config.norm` comes from, for messages."""
        super().__init__()
        norm, channels = config.norm, config.channels
        self.align_corners = config.align_corners
        self.aspp = PyramidPooling(
            maps.channels[-1],
            config.pyramid_channels,
            rates=config.rates or dilations(maps.strides[-1]),
            norm=norm,
            separable=config.separable,
            dropout=dropout,
            projection=config.projection,
            option=option,
        )
        self.low_level = convolution(maps.channels[0], config.low_level_channels, norm=norm)
        joined = config.pyramid_channels + config.low_level_channels
        three_by_three = separable_convolution if config.separable else convolution
        self.decoder = nn.Sequential(
            three_by_three(joined, channels, kernel_size=3, norm=norm),
            three_by_three(channels, channels, kernel_size=3, norm=norm),
            nn.Conv2d(channels, num_classes, kernel_size=1),
        )
        initialize_heads(self.aspp, self.low_level, self.decoder)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the finest map.

        Raises InputError on a single image in training with norm="batch".
        """
        return refined(
            features,
            aspp=self.aspp,
            low_level=self.low_level,
            decoder=self.decoder,
            align_corners=self.align_corners,
        )


def refined(
    features: FeatureMaps,
    *,
    aspp: nn.Module,
    low_level: nn.Module,
    decoder: nn.Module,
    align_corners: bool,
) -> Tensor:
    """What `decoder` makes of the pyramid of the deepest map, joined with the finest one."""
    pyramid = resized(aspp(features[-1]), like=features[0], align_corners=align_corners)
    logits: Tensor = decoder(torch.cat([pyramid, low_level(features[0])], dim=1))
    return logits
