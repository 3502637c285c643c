"""A fully convolutional head on the deepest of its feature maps: the usual auxiliary head.

Source: Long et al., CVPR 2015, arXiv 1411.4038; as an auxiliary head: Zhao et al., CVPR 2017,
arXiv 1612.01105, section 3.3.
"""

from dataclasses import dataclass

from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig, HeadNorm, check_channels, check_norm
from uda.models.decoders.heads import initialize_heads
from uda.models.decoders.pyramid_pooling import convolution
from uda.models.encoders.base import FeatureMaps, FeatureShapes


@dataclass(kw_only=True, slots=True)
class FcnConfig(DecoderConfig):
    """Settings of `Fcn`."""

    channels: int | None = None  # none: a quarter of the map's
    norm: HeadNorm = "group"  # see DeepLabV3PlusConfig.head_norm

    def check(self, maps: FeatureShapes) -> None:
        check_norm(self.norm)
        check_channels(channels=self._hidden(maps))

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "Fcn":
        return Fcn(
            maps.channels[-1], self._hidden(maps), num_classes, norm=self.norm, dropout=dropout
        )

    def _hidden(self, maps: FeatureShapes) -> int:
        return maps.channels[-1] // 4 if self.channels is None else self.channels


class Fcn(nn.Sequential):
    """A 3x3 convolution, normalization, ReLU, dropout and a 1x1 classifier."""

    def __init__(
        self, in_channels: int, channels: int, num_classes: int, *, norm: HeadNorm, dropout: float
    ) -> None:
        super().__init__(
            convolution(in_channels, channels, kernel_size=3, norm=norm),
            nn.Dropout(dropout),
            nn.Conv2d(channels, num_classes, kernel_size=1),
        )
        initialize_heads(self)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the deepest map."""
        return super().forward(features[-1])
