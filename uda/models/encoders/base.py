"""The contract between an encoder and everything else."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

from torch import Tensor, nn

FeatureMaps = tuple[Tensor, ...]  # each (N, D, h, w) float, finest first


class FeatureShapes(NamedTuple):
    """What an encoder declares about its feature maps, finest first."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]  # an image of H pixels has H / stride rows, rounded


class Normalization(NamedTuple):
    """The input a pretrained encoder expects: (RGB - mean) / std, channels reversed if `bgr`."""

    mean: tuple[float, float, float]  # of R, G, B, each in [0, 1]
    std: tuple[float, float, float]
    bgr: bool = False


IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Caffe's ResNets read BGR in 0..255 minus a mean; written for RGB in [0, 1].
CAFFE = Normalization(
    mean=(122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255),
    std=(1 / 255, 1 / 255, 1 / 255),
    bgr=True,
)


class Encoder(nn.Module, ABC):
    """A network from images to feature maps."""

    # Files with its weights: their kind, and what may precede all names.
    file_kind: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]

    channels: tuple[int, ...]  # of each map, and its strides: see FeatureShapes
    strides: tuple[int, ...]
    title: str  # in words
    normalization: Normalization = IMAGENET  # of the images that `forward` reads
    provenance: str = "random"  # where its weights come from

    @property
    def shapes(self) -> FeatureShapes:
        """Channels and strides of the maps."""
        return FeatureShapes(self.channels, self.strides)

    @abstractmethod
    def forward(self, images: Tensor) -> FeatureMaps:
        """One map for each of `channels`.

        images: (N, 3, H, W) float, normalized
        """

    @abstractmethod
    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """The entries of a file's `state` that the encoder uses, under its own names."""


class BuildEncoder(Protocol):
    """The signature of `EncoderFamily.build`."""

    def __call__(self, name: str, *, width: int, output_stride: int, weights: str) -> Encoder:
        """An encoder whose `provenance` says which weights it has.

        `width` is model.backbone_width; `output_stride` is that of the last map; `weights` is
        "none" (random), "imagenet" or the path of a state dict.

        Raises InputError when the encoder cannot be built so.
        """


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderFamily:
    """The encoders of one file of this folder, found by `encoder_named`."""

    names: str  # in words, for messages
    includes: Callable[[str], bool]  # whether an encoder of that name is one of them
    build: BuildEncoder
