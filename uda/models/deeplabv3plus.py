"""DeepLabV3+ on a ResNet or a network of timm, with an optional auxiliary head.

Source: Chen et al., ECCV 2018, arXiv 1802.02611 (decoder); Chen et al., arXiv 1706.05587 (ASPP).
"""

from dataclasses import dataclass
from typing import Literal, get_args

from uda.models.config import BackboneModelConfig, ModelConfig
from uda.models.decoders.base import HeadNorm
from uda.models.decoders.deeplabv3plus import (
    DeepLabV3PlusDecoder,
    DeepLabV3PlusDecoderConfig,
    refined,
)
from uda.models.decoders.fcn import Fcn, FcnConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import (
    IMAGENET_WIDTH,
    BackboneConfig,
    Encoder,
    EncoderConfig,
    FeatureMaps,
)
from uda.models.encoders.registry import build_encoder
from uda.models.segmenter import InputScaling, SegmentationOutput, Segmenter
from uda.utilities.errors import InputError, require


@dataclass(kw_only=True, slots=True)
class DeepLabV3PlusConfig(BackboneModelConfig):
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

    def composed(self) -> ModelConfig:
        """The same network as an encoder and a decoder that can be exchanged."""
        width, stride = self.backbone_width, self.output_stride
        return EncoderDecoderConfig(
            encoder=EncoderConfig(
                name=self.backbone, weights=self.backbone_weights, width=width, output_stride=stride
            ),
            decoder=self._decoder(),
            auxiliary=FcnConfig(norm=self.head_norm) if self.auxiliary_head else None,
            batch_norm=self.batch_norm,
            dropout=self.dropout,
            input_scaling=self.input_scaling,
            align_corners=self.align_corners,
        )

    def build(self, num_classes: int) -> "DeepLabV3Plus":
        self.check(num_classes)
        _check(self)
        encoder = build_encoder(
            BackboneConfig(
                name=self.backbone,
                weights=self.backbone_weights,
                width=self.backbone_width,
                output_stride=self.output_stride,
            )
        )
        decoder = DeepLabV3PlusDecoder(
            self._decoder(),
            encoder.shapes,
            num_classes,
            dropout=self.dropout,
            option="model.head_norm",
        )
        return DeepLabV3Plus(encoder, decoder, self, num_classes)

    def _decoder(self) -> DeepLabV3PlusDecoderConfig:
        return DeepLabV3PlusDecoderConfig(
            rates=self.aspp_rates,
            pyramid_channels=self.aspp_channels,
            low_level_channels=self.low_level_channels,
            channels=self.decoder_channels,
            norm=self.head_norm,
            separable=self.separable,
            align_corners=self.align_corners,
        )


class DeepLabV3Plus(Segmenter):
    """The decoder of decoders/deeplabv3plus.py, whose layers are children of this network: so they
    are named in its snapshots."""

    def __init__(
        self,
        backbone: Encoder,
        head: DeepLabV3PlusDecoder,
        config: DeepLabV3PlusConfig,
        num_classes: int,
    ) -> None:
        """`config.build` checks the fields."""
        super().__init__(
            backbone,
            provenance=backbone.provenance,
            batch_norm=config.batch_norm,
            align_corners=config.align_corners,
            normalization=backbone.normalization,
            input_scaling=config.input_scaling,
        )
        self.aspp, self.low_level, self.decoder = head.aspp, head.low_level, head.decoder
        # The auxiliary head reads the map before the deepest one, if both have the same stride.
        self.middle = -2 if backbone.strides[-2] == backbone.strides[-1] else -1
        self.auxiliary: Fcn | None = None
        if config.auxiliary_head:
            channels = backbone.channels[self.middle]
            self.auxiliary = Fcn(
                channels,
                channels // 4,
                num_classes,
                norm=config.head_norm,
                dropout=config.dropout,
            )

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`."""
        return self.auxiliary is not None

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at stride 4; auxiliary ones at layer3's stride.

        Raises InputError on a single image in training when the heads are batch-normalized.
        """
        logits = refined(
            features,
            aspp=self.aspp,
            low_level=self.low_level,
            decoder=self.decoder,
            align_corners=self.align_corners,
        )
        auxiliary = self.auxiliary
        return SegmentationOutput(
            logits=logits,
            auxiliary_logits=None if auxiliary is None else auxiliary((features[self.middle],)),
            features=features[-1],
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
