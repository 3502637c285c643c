"""A linear classifier on the deepest feature map."""

from dataclasses import dataclass

from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.decoders.heads import initialize_heads
from uda.models.encoders.base import FeatureMaps, FeatureShapes


@dataclass(kw_only=True, slots=True)
class LinearConfig(DecoderConfig):
    """Settings of `Linear`: it has none."""

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "Linear":
        return Linear(maps.channels[-1], num_classes, dropout=dropout)


class Linear(nn.Module):
    """A 1x1 convolution."""

    def __init__(self, in_channels: int, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(in_channels, num_classes, kernel_size=1)
        initialize_heads(self.classifier)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the deepest map."""
        return self.classifier(self.dropout(features[-1]))
