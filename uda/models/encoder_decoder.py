"""Any encoder with any decoder."""

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal, Self, get_args

from torch import Tensor, nn

from uda.models.config import ModelConfig
from uda.models.decoders.base import DecoderConfig, decoder_name, fitting_decoders
from uda.models.decoders.deeplabv3plus import DeepLabV3PlusDecoderConfig
from uda.models.encoders.base import (
    Encoder,
    EncoderConfig,
    FeatureMaps,
    FeatureShapes,
    HideTokens,
)
from uda.models.encoders.registry import build_encoder, hides_tokens
from uda.models.hrda import Hrda, HrdaConfig
from uda.models.segmenter import InputScaling, Perturbation, SegmentationOutput, Segmenter
from uda.utilities.errors import InputError, require


@dataclass(kw_only=True, slots=True)
class EncoderDecoderConfig(ModelConfig):
    """Settings of `EncoderDecoder`."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    decoder: DecoderConfig = field(default_factory=DeepLabV3PlusDecoderConfig)
    auxiliary: DecoderConfig | None = None  # an auxiliary head: a decoder of one map,
    auxiliary_map: int = -2  # this one; -1 is the deepest
    # "min_max": each channel of each image from 0 to 1, instead of the encoder's mean and std.
    input_scaling: InputScaling = "statistics"
    # Images are resized by this factor, down to a size that the encoder accepts. None: they are
    # padded where the encoder's patches do not divide them.
    input_scale: float | None = None
    align_corners: bool = False  # when logits are resized to the input's size
    hrda: HrdaConfig | None = None  # context and details, fused; see Hrda

    def idle(self) -> dict[str, str]:
        """See KnowsIdle."""
        return {} if self.auxiliary is not None else {"auxiliary_map": "model.auxiliary is none"}

    @property
    def has_auxiliary_head(self) -> bool:
        return self.auxiliary is not None

    @property
    def auxiliary_switch(self) -> tuple[str, str]:
        return "auxiliary", "none"

    @property
    def hides_tokens(self) -> bool:
        return hides_tokens(self.encoder.name)

    @property
    def title(self) -> str:
        """The network in words, such as "daformer on mit_b5"."""
        hrda = "" if self.hrda is None else "HRDA of "
        return f"{hrda}{decoder_name(self.decoder)} on {self.encoder.name}"

    def composed(self) -> Self:
        """Itself."""
        return self

    def without_weights(self) -> Self:
        """The same network with an encoder from random weights: nothing is read or downloaded."""
        return replace(self, encoder=replace(self.encoder, weights="none"))

    def build(self, num_classes: int) -> "EncoderDecoder":
        self.check(num_classes)
        require(
            self.input_scaling in get_args(InputScaling),
            f"model.input_scaling is {self.input_scaling!r}; allowed: "
            f"{', '.join(get_args(InputScaling))}",
        )
        scale = self.input_scale
        require(
            scale is None or 0 < scale <= _LARGEST_SCALE,
            f"model.input_scale is {scale}; allowed: none, or above 0 and up to {_LARGEST_SCALE}",
        )
        require(
            self.hrda is None or (scale is None and not self.align_corners),
            f"model.input_scale is {scale} and model.align_corners is "
            f"{str(self.align_corners).lower()}; with model.hrda, allowed: none and false",
        )
        encoder = build_encoder(self.encoder)
        decoder = self._built(self.decoder, "decoder", encoder.shapes, encoder, num_classes)
        auxiliary = None
        if self.auxiliary is not None:
            maps = self._auxiliary_map(encoder)
            auxiliary = self._built(self.auxiliary, "auxiliary", maps, encoder, num_classes)
        hrda = None
        if self.hrda is not None:
            hrda = self.hrda.build(
                self.decoder, encoder, num_classes=num_classes, dropout=self.dropout
            )
        return EncoderDecoder(encoder, decoder, auxiliary, self, num_classes, hrda=hrda)

    def _built(
        self,
        config: DecoderConfig,
        place: Literal["decoder", "auxiliary"],
        maps: FeatureShapes,
        encoder: Encoder,
        num_classes: int,
    ) -> nn.Module:
        """The decoder; InputError, with those that fit, when it cannot read such maps."""
        try:
            config.check(maps)
        except InputError as error:
            first, *others = fitting_decoders(maps)
            title = f"the feature maps of {encoder.title} (strides {_listed(maps.strides)})"
            raise InputError(
                f"model.{place}.name={decoder_name(config)} cannot decode {title}: "
                f"{str(error).replace('model.decoder', f'model.{place}')}; with "
                f"default settings these fit: --set model.{place}.name={first}, or "
                f"{', '.join(others)}"
            ) from None
        return config.build(maps, num_classes=num_classes, dropout=self.dropout)

    def _auxiliary_map(self, encoder: Encoder) -> FeatureShapes:
        count = len(encoder.channels)
        require(
            -count <= self.auxiliary_map < count,
            f"model.auxiliary_map is {self.auxiliary_map}, but {encoder.title} has {count} feature "
            f"maps; allowed: {-count} to {count - 1}",
        )
        place = self.auxiliary_map
        return FeatureShapes((encoder.channels[place],), (encoder.strides[place],))


_LARGEST_SCALE = 8  # of images inside a network; nobody goes beyond 2


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))


class EncoderDecoder(Segmenter):
    """The logits of `decoder`, which reads all feature maps of the encoder."""

    def __init__(
        self,
        encoder: Encoder,
        decoder: nn.Module,
        auxiliary: nn.Module | None,
        config: EncoderDecoderConfig,
        num_classes: int,
        *,
        hrda: Hrda | None = None,
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
        self.auxiliary = auxiliary
        self.auxiliary_map = config.auxiliary_map
        self.hrda = hrda
        # HRDA pads images itself, to whole details.
        self.divisor = encoder.divisor if hrda is None else 1
        self.input_scale = config.input_scale
        self.num_classes = num_classes

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`."""
        return self.auxiliary is not None

    def context(self, normalized: Tensor) -> Tensor:
        """The images themselves; with `hrda`, the downscaled ones."""
        return normalized if self.hrda is None else self.hrda.context(normalized)

    def predict(
        self,
        normalized: Tensor,
        perturb: Perturbation | None,
        hide_tokens: HideTokens | None = None,
    ) -> SegmentationOutput:
        """Logits at the network's own stride. With `hrda`, `perturb` changes the maps of the
        context and of details, tokens of both are hidden, and `features` are the context's.
        """
        if self.hrda is None:
            return super().predict(normalized, perturb, hide_tokens)

        def encode(images: Tensor) -> FeatureMaps:
            features = self.encoded(images, hide_tokens)
            return features if perturb is None else perturb(features)

        output: SegmentationOutput = self.hrda(
            normalized, encode, self.decode, partial(self._decoded, self.decoder)
        )
        return output

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at the decoder's stride, and those of the auxiliary head at its own.

        Raises InputError when a decoder returns anything else.
        """
        logits = self._decoded(self.decoder, features)
        auxiliary = None
        if self.auxiliary is not None:
            auxiliary = self._decoded(self.auxiliary, (features[self.auxiliary_map],))
        return SegmentationOutput(logits, auxiliary, features[-1])

    def _decoded(self, decoder: nn.Module, features: FeatureMaps) -> Tensor:
        logits: Tensor = decoder(features)
        # Not `len`, which is a number: programs of torch.export take any number of images.
        expected = (features[-1].shape[0], self.num_classes)
        require(
            logits.ndim == 4 and logits.shape[:2] == expected,
            f"{type(decoder).__name__} returned {tuple(logits.shape)}; needed: logits "
            f"({expected[0]}, {expected[1]}, h, w)",
        )
        return logits
