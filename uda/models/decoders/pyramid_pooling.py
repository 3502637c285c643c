"""Atrous spatial pyramid pooling, and the convolutions of DeepLabV3+'s heads.

Source: Chen et al., arXiv 1706.05587.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from uda.models.decoders.base import HeadNorm
from uda.models.decoders.heads import refuse_single_image

_DILATIONS = (6, 12, 18)  # of the branches at stride 16, as in the paper
MAX_GROUPS = 32  # Wu and He, arXiv 1803.08494


def dilations(stride: int) -> tuple[int, ...]:
    """Those of the branches at this stride: the same distance in pixels at every stride, so 12, 24
    and 36 at stride 8, as in the paper."""
    return tuple(max(1, round(rate * 16 / stride)) for rate in _DILATIONS)


class PyramidPooling(nn.Module):
    """ASPP: 1x1, dilated 3x3 and image-pooling branches, concatenated and projected."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        rates: tuple[int, ...],
        norm: HeadNorm,
        separable: bool,
        dropout: float,
        projection: Literal[1, 3] = 1,
        option: str = "model.head_norm",
    ) -> None:
        """`projection`: side of the last convolution's kernel; `option`: the field that `norm`
        comes from, for messages."""
        super().__init__()
        self.option = option
        three_by_three = separable_convolution if separable else convolution
        dilated = [
            three_by_three(in_channels, channels, kernel_size=3, dilation=rate, norm=norm)
            for rate in rates
        ]
        self.branches = nn.ModuleList([convolution(in_channels, channels, norm=norm), *dilated])
        # A pooled image has one value per channel. In 32 groups of a 64-channel head, group
        # normalization would make each pair of them +1 and -1; hence one group.
        self.pooled = convolution(in_channels, channels, norm=norm, max_groups=1)
        self.project = nn.Sequential(
            convolution((len(rates) + 2) * channels, channels, kernel_size=projection, norm=norm),
            nn.Dropout(dropout),
        )

    def forward(self, features: Tensor) -> Tensor:
        refuse_single_image(
            self.pooled[1],
            features,
            heads=f"heads with {self.option}=batch",
            instead=f"use --set {self.option}=group or larger batches",
        )
        pooled = self.pooled(features.mean(dim=(2, 3), keepdim=True))
        everywhere = pooled.expand(-1, -1, *features.shape[-2:])
        branches = [branch(features) for branch in self.branches]
        return self.project(torch.cat([*branches, everywhere], dim=1))


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    norm: HeadNorm,
    kernel_size: Literal[1, 3] = 1,
    dilation: int = 1,
    channelwise: bool = False,
    max_groups: int = MAX_GROUPS,
) -> nn.Sequential:
    """Convolution that keeps the size (depthwise if `channelwise`), normalization, ReLU."""
    groups = max(g for g in range(1, max_groups + 1) if out_channels % g == 0)
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=in_channels if channelwise else 1,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels) if norm == "batch" else nn.GroupNorm(groups, out_channels),
        nn.ReLU(inplace=True),
    )


def separable_convolution(
    in_channels: int,
    out_channels: int,
    *,
    norm: HeadNorm,
    kernel_size: Literal[3],
    dilation: int = 1,
) -> nn.Sequential:
    """A depthwise 3x3, then a 1x1 convolution, each with normalization and ReLU.

    Source: Chen et al., arXiv 1802.02611, section 3.2.
    """
    return nn.Sequential(
        *convolution(
            in_channels,
            in_channels,
            norm=norm,
            kernel_size=kernel_size,
            dilation=dilation,
            channelwise=True,
        ),
        *convolution(in_channels, out_channels, norm=norm),
    )
