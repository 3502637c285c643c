"""Feature maps of any number, strides and channels as one map: what SegFormer's and DAFormer's
heads begin with."""

from typing import Literal

import torch
from torch import Tensor, nn

from uda.models.decoders.heads import resized
from uda.models.decoders.pyramid_pooling import convolution
from uda.models.encoders.base import FeatureMaps, FeatureShapes

Embedding = Literal["linear", "convolution"]


class PixelLinear(nn.Linear):
    """A linear layer on the channels of each pixel of a map (N, C, h, w)."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Embeddings(nn.ModuleList):
    """Each map brought to `channels`, then to the size of the finest, and concatenated, finest
    first.

    `embedding`: "linear": a linear layer with bias; "convolution": a 1x1 convolution, batch
    normalization and ReLU.
    """

    def __init__(self, maps: FeatureShapes, channels: int, embedding: Embedding = "linear") -> None:
        super().__init__(
            PixelLinear(before, channels)
            if embedding == "linear"
            else convolution(before, channels, norm="batch")
            for before in maps.channels
        )

    def forward(self, features: FeatureMaps) -> Tensor:
        """(N, maps * channels, h, w), h and w those of the finest map."""
        embedded = [embed(each) for embed, each in zip(self, features, strict=True)]
        return torch.cat([resized(each, like=features[0]) for each in embedded], dim=1)
