"""Any encoder with any decoder."""

from dataclasses import dataclass, field
from typing import Literal, get_args

from torch import nn

from uda.models.decoders.aspp import AsppConfig
from uda.models.decoders.base import DecoderConfig, fitting_decoders
from uda.models.encoders.base import Encoder, FeatureMaps
from uda.models.encoders.registry import encoder_named
from uda.models.encoders.resnet import IMAGENET_WIDTH
from uda.models.segmenter import InputScaling, ModelConfig, SegmentationOutput, Segmenter
from uda.utilities.errors import InputError, require


@dataclass(kw_only=True, slots=True)
class EncoderDecoderConfig(ModelConfig):
    """Settings of `EncoderDecoder`."""

    backbone: str = "resnet101"  # an encoder: see uda/models/encoders/
    backbone_width: int = IMAGENET_WIDTH  # channels of a ResNet's stem; the others scale with it
    output_stride: Literal[8, 16, 32] = 16  # of the deepest feature map
    # "min_max": each channel of each image from 0 to 1, instead of the encoder's mean and std.
    input_scaling: InputScaling = "statistics"
    decoder: DecoderConfig = field(default_factory=AsppConfig)
    align_corners: bool = False  # when logits are resized to the input's size

    def build(self, num_classes: int) -> "EncoderDecoder":
        self.check(num_classes)
        require(
            self.input_scaling in get_args(InputScaling),
            f"model.input_scaling is {self.input_scaling!r}; allowed: "
            f"{', '.join(get_args(InputScaling))}",
        )
        encoder = encoder_named(
            self.backbone,
            width=self.backbone_width,
            output_stride=self.output_stride,
            weights=self.backbone_weights,
        )
        try:
            self.decoder.check(encoder.shapes)
        except InputError as error:
            others = " or ".join(fitting_decoders(encoder.shapes))
            raise InputError(
                f"{type(self.decoder).__name__} cannot decode the feature maps of {encoder.title}: "
                f"{error}; with default settings these can: --set model.decoder={others}"
            ) from None
        decoder = self.decoder.build(encoder.shapes, num_classes=num_classes, dropout=self.dropout)
        return EncoderDecoder(encoder, decoder, self, num_classes)


class EncoderDecoder(Segmenter):
    """The logits of `decoder`, which reads all feature maps of the encoder."""

    def __init__(
        self, encoder: Encoder, decoder: nn.Module, config: EncoderDecoderConfig, num_classes: int
    ) -> None:
        super().__init__(
            encoder,
            provenance=encoder.provenance,
            batch_norm=config.batch_norm,
            align_corners=config.align_corners,
            normalization=encoder.normalization,
            input_scaling=config.input_scaling,
        )
        self.decoder = decoder
        self.num_classes = num_classes

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`: they never do."""
        return False

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at the decoder's stride.

        Raises InputError when the decoder returns anything else.
        """
        logits = self.decoder(features)
        expected = (len(features[-1]), self.num_classes)
        require(
            logits.ndim == 4 and logits.shape[:2] == expected,
            f"{type(self.decoder).__name__} returned {tuple(logits.shape)}; needed: logits "
            f"({expected[0]}, {expected[1]}, h, w)",
        )
        return SegmentationOutput(logits=logits, auxiliary_logits=None, features=features[-1])
