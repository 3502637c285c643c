"""DAFormer's context-aware fusion, on maps of any number and strides.

Source: Hoyer et al., "DAFormer", CVPR 2022, arXiv 2111.14887, section 3.1.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.decoders.embeddings import Embeddings
from uda.models.decoders.heads import initialize_heads
from uda.models.decoders.pyramid_pooling import convolution, separable_convolution
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require

Fusion = Literal["sepaspp", "aspp", "conv1"]


@dataclass(kw_only=True, slots=True)
class DAFormerConfig(DecoderConfig):
    """Settings of `DAFormer`."""

    channels: int = 256
    # "sepaspp": ASPP without image pooling, with separable convolutions; "aspp": with ordinary
    # ones; "conv1": a 1x1 convolution.
    fusion: Fusion = "sepaspp"
    rates: tuple[int, ...] = (6, 12, 18)  # dilations of the ASPP

    def idle(self) -> dict[str, str]:
        """See KnowsIdle."""
        return (
            {"rates": "fusion is conv1, which has no dilations"} if self.fusion == "conv1" else {}
        )

    def check(self, maps: FeatureShapes) -> None:
        require(
            self.channels >= 1, f"model.decoder.channels is {self.channels}; allowed: 1 or more"
        )
        allowed = get_args(Fusion)
        require(
            self.fusion in allowed,
            f"model.decoder.fusion is {self.fusion!r}; allowed: {', '.join(allowed)}",
        )
        require(
            all(rate >= 1 for rate in self.rates),
            f"model.decoder.rates is {self.rates}; allowed: dilations of 1 or more",
        )

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "DAFormer":
        return DAFormer(maps, self, num_classes, dropout=dropout)


class DAFormer(nn.Module):
    """Embedded maps, finest first, and their fusion; `dropout` drops whole channels."""

    def __init__(
        self, maps: FeatureShapes, config: DAFormerConfig, num_classes: int, *, dropout: float
    ) -> None:
        super().__init__()
        width = config.channels
        together = len(maps.channels) * width
        self.embeddings = Embeddings(maps, width)
        self.fusion = (
            convolution(together, width, norm="batch")
            if config.fusion == "conv1"
            else _Pyramid(together, width, config.rates, separable=config.fusion == "sepaspp")
        )
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(width, num_classes, kernel_size=1)
        initialize_heads(self)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the finest map."""
        return self.classifier(self.dropout(self.fusion(self.embeddings(features))))


class _Pyramid(nn.Module):
    """ASPP without image pooling: a 1x1 and dilated branches, concatenated, and a 3x3 convolution
    of them."""

    def __init__(
        self, in_channels: int, channels: int, rates: tuple[int, ...], *, separable: bool
    ) -> None:
        super().__init__()
        dilated = separable_convolution if separable else convolution
        self.branches = nn.ModuleList(
            [convolution(in_channels, channels, norm="batch")]
            + [
                dilated(in_channels, channels, norm="batch", kernel_size=3, dilation=rate)
                for rate in rates
            ]
        )
        self.bottleneck = convolution(
            len(self.branches) * channels, channels, norm="batch", kernel_size=3
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.bottleneck(torch.cat([branch(features) for branch in self.branches], dim=1))
