"""What a network takes its features from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class BackboneFeatures(NamedTuple):
    """What a backbone makes of images (N, 3, H, W); every stride rounds sizes up, and a max-pool
    with `ceil_mode` makes 1 more of an even size."""

    low_level: Tensor  # (N, D1, h, w) of layer1, stride 4
    middle: Tensor  # (N, D3, h, w) of layer3, stride 16, or 8 at output stride 8
    deep: Tensor  # (N, D4, h, w) of layer4, at output stride


class BackboneChannels(NamedTuple):
    """Channels of each map of BackboneFeatures."""

    low_level: int
    middle: int
    deep: int


class Backbone(nn.Module, ABC):
    """What a network takes its features from."""

    # Files with its weights: their kind, and what may precede all names.
    file_kind: ClassVar[str]
    prefixes: ClassVar[tuple[str, ...]]

    channels: BackboneChannels
    title: str  # in words
    provenance: str = "random"  # where its weights come from

    @abstractmethod
    def forward(self, images: Tensor) -> BackboneFeatures:
        """Features at three depths.

        images: (N, 3, H, W) float, normalized
        """

    @abstractmethod
    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """A file's `state` without what this backbone has no use for."""
