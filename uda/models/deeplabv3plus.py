"""DeepLabV3+ on a ResNet or a network of timm, with an optional auxiliary head.

Source: Chen et al., ECCV 2018, arXiv 1802.02611 (decoder); Chen et al., arXiv 1706.05587 (ASPP).
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from uda.models.decoders.heads import initialize_heads, resized
from uda.models.decoders.pyramid_pooling import (
    DILATIONS,
    HeadNorm,
    PyramidPooling,
    convolution,
    separable_convolution,
)
from uda.models.encoders.base import Encoder, FeatureMaps
from uda.models.encoders.registry import encoder_named
from uda.models.encoders.resnet import IMAGENET_WIDTH
from uda.models.segmenter import (
    InputScaling,
    ModelConfig,
    SegmentationOutput,
    Segmenter,
)
from uda.utilities.errors import InputError, require


@dataclass(kw_only=True, slots=True)
class DeepLabV3PlusConfig(ModelConfig):
    """Settings of `DeepLabV3Plus`."""

    # A ResNet of encoders/resnet.py, or timm/ and a name of timm's: timm/inception_resnet_v2.
    backbone: str = "resnet101"
    backbone_width: int = IMAGENET_WIDTH  # channels of a ResNet's stem; the others scale with it
    # "min_max": each channel of each image from 0 to 1, instead of the backbone's mean and std.
    input_scaling: InputScaling = "statistics"

    output_stride: Literal[8, 16] = 16  # of the deepest features
    # With one or two images per batch, batch normalization of the pooled image (one value per
    # channel and image) leaves only a sign; group normalization does not depend on the batch.
    head_norm: HeadNorm = "group"
    aspp_rates: tuple[int, ...] = ()  # dilations; empty: 6, 12, 18 at stride 16, doubled at 8
    aspp_channels: int = 256
    low_level_channels: int = 48
    decoder_channels: int = 256
    # 3x3 convolutions of ASPP and decoder process each channel separately; a 1x1 then mixes them.
    separable: bool = False
    auxiliary_head: bool = True  # on layer3
    align_corners: bool = False  # of every bilinear resize, that of the logits included

    @property
    def has_auxiliary_head(self) -> bool:
        return self.auxiliary_head

    @property
    def auxiliary_switch(self) -> tuple[str, str]:
        return "auxiliary_head", "false"

    def build(self, num_classes: int) -> "DeepLabV3Plus":
        self.check(num_classes)
        _check(self)
        encoder = encoder_named(
            self.backbone,
            width=self.backbone_width,
            output_stride=self.output_stride,
            weights=self.backbone_weights,
        )
        return DeepLabV3Plus(encoder, self, num_classes)


class DeepLabV3Plus(Segmenter):
    """Atrous spatial pyramid pooling on the deepest features, refined by the stride-4 ones."""

    def __init__(self, backbone: Encoder, config: DeepLabV3PlusConfig, num_classes: int) -> None:
        """Heads around `backbone`, Kaiming-initialized; `config.build` checks the fields."""
        super().__init__(
            backbone,
            provenance=backbone.provenance,
            batch_norm=config.batch_norm,
            align_corners=config.align_corners,
            normalization=backbone.normalization,
            input_scaling=config.input_scaling,
        )
        norm, channels, strides = config.head_norm, backbone.channels, backbone.strides
        # The auxiliary head reads the map before the deepest one, if both have the same stride.
        self.middle = -2 if strides[-2] == strides[-1] else -1
        self.aspp = PyramidPooling(
            channels[-1],
            config.aspp_channels,
            rates=config.aspp_rates or DILATIONS[config.output_stride],
            norm=norm,
            separable=config.separable,
            dropout=config.dropout,
        )
        self.low_level = convolution(channels[0], config.low_level_channels, norm=norm)
        joined = config.aspp_channels + config.low_level_channels
        three_by_three = separable_convolution if config.separable else convolution
        self.decoder = nn.Sequential(
            three_by_three(joined, config.decoder_channels, kernel_size=3, norm=norm),
            three_by_three(
                config.decoder_channels, config.decoder_channels, kernel_size=3, norm=norm
            ),
            nn.Conv2d(config.decoder_channels, num_classes, kernel_size=1),
        )
        initialize_heads(self.aspp, self.low_level, self.decoder)
        self.auxiliary: nn.Sequential | None = None
        if config.auxiliary_head:
            hidden = channels[self.middle] // 4
            self.auxiliary = nn.Sequential(
                convolution(channels[self.middle], hidden, kernel_size=3, norm=norm),
                nn.Dropout(config.dropout),
                nn.Conv2d(hidden, num_classes, kernel_size=1),
            )
            initialize_heads(self.auxiliary)

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`."""
        return self.auxiliary is not None

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at stride 4; auxiliary ones at layer3's stride.

        Raises InputError on a single image in training when the heads are batch-normalized.
        """
        low_level, deep = features[0], features[-1]
        pyramid = resized(self.aspp(deep), like=low_level, align_corners=self.align_corners)
        joined = torch.cat([pyramid, self.low_level(low_level)], dim=1)
        return SegmentationOutput(
            logits=self.decoder(joined),
            auxiliary_logits=None
            if self.auxiliary is None
            else self.auxiliary(features[self.middle]),
            features=deep,
        )


def _check(config: DeepLabV3PlusConfig) -> None:
    if config.head_norm not in get_args(HeadNorm):
        raise InputError(
            f"model.head_norm is {config.head_norm!r}; allowed: {', '.join(get_args(HeadNorm))}"
        )
    require(
        config.input_scaling in get_args(InputScaling),
        f"model.input_scaling is {config.input_scaling!r}; allowed: "
        f"{', '.join(get_args(InputScaling))}",
    )
    if any(rate < 1 for rate in config.aspp_rates):
        raise InputError(
            f"model.aspp_rates is {config.aspp_rates}; allowed: dilations of 1 or more, or nothing "
            "for the defaults"
        )
    # One channel, normalized over itself, is a constant.
    for name in ("aspp_channels", "low_level_channels", "decoder_channels"):
        if getattr(config, name) < 2:
            raise InputError(f"model.{name} is {getattr(config, name)}; allowed: 2 or more")
