"""A decoder that adds up all feature maps, as in a feature pyramid network.

Source: Kirillov et al., CVPR 2019, arXiv 1901.02446, simplified.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.encoders.base import FeatureMaps, FeatureShapes


@dataclass(kw_only=True, slots=True)
class SumOfMapsConfig(DecoderConfig):
    """Settings of `SumOfMaps`."""

    channels: int = 128  # of the sum

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "SumOfMaps":
        return SumOfMaps(maps.channels, self.channels, num_classes, dropout)


class SumOfMaps(nn.Module):
    """The maps, with equal channels and at the finest map's size, added and classified."""

    def __init__(
        self, inputs: tuple[int, ...], channels: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        self.project = nn.ModuleList(nn.Conv2d(size, channels, kernel_size=1) for size in inputs)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=3, padding=1)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the finest map."""
        size = features[0].shape[-2:]
        maps = [
            F.interpolate(project(feature), size=size, mode="bilinear", align_corners=False)
            for project, feature in zip(self.project, features, strict=True)
        ]
        return self.classifier(self.dropout(F.relu(sum(maps[1:], start=maps[0]))))
