"""UPerNet: pooling pyramid on the deepest map, then a feature pyramid, all levels fused.

Source: Xiao et al., ECCV 2018, arXiv 1807.10221. A pyramid from maps of one stride is made as in
BEiT (Bao et al., ICLR 2022, arXiv 2106.08254).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig, HeadNorm, check_channels, check_norm
from uda.models.decoders.heads import initialize_heads, refuse_single_image, resized
from uda.models.decoders.pyramid_pooling import MAX_GROUPS, convolution
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require

_LEVELS = 4  # of a pyramid from maps of one stride


@dataclass(kw_only=True, slots=True)
class UpernetConfig(DecoderConfig):
    """Settings of `Upernet`."""

    channels: int = 512
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)  # cells along a side of the pooled deepest map
    norm: HeadNorm = "group"  # see DeepLabV3PlusConfig.head_norm; the paper has batch

    def check(self, maps: FeatureShapes) -> None:
        check_norm(self.norm)
        check_channels(channels=self.channels)
        require(
            bool(self.pool_scales) and all(scale >= 1 for scale in self.pool_scales),
            f"model.decoder.pool_scales is {self.pool_scales}; allowed: numbers of 1 or more, such "
            "as --set model.decoder.pool_scales=1,2,3,6",
        )
        require(
            len(set(maps.strides)) > 1 or len(maps.strides) in (1, _LEVELS),
            f"the encoder has {len(maps.strides)} maps, all of stride {maps.strides[0]}; allowed: "
            f"one, {_LEVELS}, or maps of several strides",
        )

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "Upernet":
        return Upernet(maps, self, num_classes, dropout=dropout)


class Upernet(nn.Module):
    """The pooled deepest map is added to the finer ones on the way down; all are fused at the
    finest."""

    def __init__(
        self, maps: FeatureShapes, config: UpernetConfig, num_classes: int, *, dropout: float
    ) -> None:
        super().__init__()
        channels, norm = config.channels, config.norm
        one_stride = len(maps.strides) == _LEVELS and len(set(maps.strides)) == 1
        self.pyramid = _Pyramid(maps.channels, norm=norm) if one_stride else None
        *finer, deepest = maps.channels
        self.pool_scales = config.pool_scales
        # Where the whole map is pooled, a channel has one value: see PyramidPooling.
        self.pooled = nn.ModuleList(
            convolution(deepest, channels, norm=norm, max_groups=1 if scale == 1 else MAX_GROUPS)
            for scale in config.pool_scales
        )
        self.bottleneck = convolution(
            deepest + len(config.pool_scales) * channels, channels, kernel_size=3, norm=norm
        )
        self.lateral = nn.ModuleList([convolution(c, channels, norm=norm) for c in finer])
        self.smooth = nn.ModuleList(
            [convolution(channels, channels, kernel_size=3, norm=norm) for _ in finer]
        )
        self.fuse = convolution(len(maps.channels) * channels, channels, kernel_size=3, norm=norm)
        self.dropout = nn.Dropout2d(dropout)
        self.classifier = nn.Conv2d(channels, num_classes, kernel_size=1)
        initialize_heads(
            self.pooled, self.bottleneck, self.lateral, self.smooth, self.fuse, self.classifier
        )

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the stride of the finest map; a quarter of it where all maps have one stride.

        Raises InputError on a single image in training with norm="batch".
        """
        *finer, deepest = features if self.pyramid is None else self.pyramid(features)
        level = self._pool(deepest)
        levels = [level]
        laterals = [lateral(m) for lateral, m in zip(self.lateral, finer, strict=True)]
        for lateral, smooth in zip(reversed(laterals), reversed(list(self.smooth)), strict=True):
            level = lateral + resized(level, like=lateral)
            levels.append(smooth(level))
        finest_first = levels[::-1]
        fused = torch.cat([resized(m, like=finest_first[0]) for m in finest_first], dim=1)
        return self.classifier(self.dropout(self.fuse(fused)))

    def _pool(self, deepest: Tensor) -> Tensor:
        parts = [deepest]
        for scale, branch in zip(self.pool_scales, self.pooled, strict=True):
            if scale == 1:
                assert isinstance(branch, nn.Sequential)
                refuse_single_image(
                    branch[1],
                    deepest,
                    heads="UPerNet with model.decoder.norm=batch",
                    instead="use --set model.decoder.norm=group or larger batches",
                )
            parts.append(resized(branch(F.adaptive_avg_pool2d(deepest, scale)), like=deepest))
        return self.bottleneck(torch.cat(parts, dim=1))


class _Pyramid(nn.Module):
    """Four maps of one stride to a quarter of it, half of it, itself and its double."""

    def __init__(self, channels: tuple[int, ...], *, norm: HeadNorm) -> None:
        super().__init__()
        first, second = channels[0], channels[1]
        normalization = nn.BatchNorm2d(first) if norm == "batch" else nn.GroupNorm(1, first)
        self.to_quarter = nn.Sequential(
            nn.ConvTranspose2d(first, first, kernel_size=2, stride=2),
            normalization,
            nn.GELU(),
            nn.ConvTranspose2d(first, first, kernel_size=2, stride=2),
        )
        self.to_half = nn.ConvTranspose2d(second, second, kernel_size=2, stride=2)

    def forward(self, features: FeatureMaps) -> FeatureMaps:
        first, second, third, fourth = features
        # Of an odd side the rest is a cell, too.
        double = F.max_pool2d(fourth, kernel_size=2, ceil_mode=True)
        return self.to_quarter(first), self.to_half(second), third, double
