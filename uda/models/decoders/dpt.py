"""DPT's head: maps of several depths are brought to several sizes and fused from coarse to fine.

Source: Ranftl et al., "Vision Transformers for Dense Prediction", ICCV 2021, arXiv 2103.13413, in
the sizes of UniMatch V2 (Yang et al., arXiv 2410.10777, LiheYoung/UniMatch-V2@f6afb4df).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require

_LARGE = 1024  # channels of a ViT-L, whose sizes do not follow the rule of the others


@dataclass(kw_only=True, slots=True)
class DptConfig(DecoderConfig):
    """Settings of `Dpt`. The original has no dropout and aligns corners when logits are resized:
    model.dropout=0, model.align_corners=true."""

    # Of the fused maps; none: a sixth of the encoder's, and 256 for ViT-L.
    channels: int | None = None
    # Of the four maps before they are fused; nothing: an eighth, a quarter, half and all of the
    # encoder's, and 256, 512, 1024, 1024 for ViT-L.
    widths: tuple[int, ...] = ()

    def check(self, maps: FeatureShapes) -> None:
        fused = self.channels
        require(
            fused is None or fused >= 1,
            f"model.decoder.channels is {fused}; allowed: 1 or more, or none for the default",
        )
        require(
            not self.widths or (len(self.widths) == len(maps.channels) and min(self.widths) >= 1),
            f"model.decoder.widths is {self.widths}; allowed: {len(maps.channels)} numbers of "
            "channels, one for each map, or nothing for the defaults",
        )
        require(
            len(set(maps.strides)) > 1 or len(maps.strides) == len(_SHARES),
            f"the decoder brings {len(_SHARES)} maps of one stride to as many sizes; there are "
            f"{len(maps.strides)}",
        )

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "Dpt":
        deepest = maps.channels[-1]
        plain = len(set(maps.strides)) == 1
        widths = self.widths
        if not widths and plain:
            shares = _LARGE_SHARES if deepest == _LARGE else _SHARES
            widths = tuple(max(int(deepest * share), 1) for share in shares)
        fused = self.channels or (_LARGE // 4 if deepest == _LARGE else max(deepest // 6, 1))
        return Dpt(
            maps.channels, widths or maps.channels, fused, num_classes, dropout, resizes=plain
        )


_SHARES = (1 / 8, 1 / 4, 1 / 2, 1)
_LARGE_SHARES = (1 / 4, 1 / 2, 1, 1)


class Dpt(nn.Module):
    """Each map by a 1x1 convolution to a width of its own; maps of a plain transformer then to 4,
    2, 1 and 1/2 times its grid (those of a pyramid keep their sizes); 3x3 convolutions to one
    width; fusion; classification at twice the size of the finest map."""

    def __init__(
        self,
        inputs: Sequence[int],
        widths: Sequence[int],
        channels: int,
        num_classes: int,
        dropout: float,
        *,
        resizes: bool,
    ) -> None:
        super().__init__()
        self.projects = nn.ModuleList(
            nn.Conv2d(size, width, kernel_size=1)
            for size, width in zip(inputs, widths, strict=True)
        )
        self.resizes = nn.ModuleList(map(_resize, range(len(widths)), widths)) if resizes else None
        self.narrow = nn.ModuleList(
            nn.Conv2d(width, channels, kernel_size=3, padding=1, bias=False) for width in widths
        )
        count = len(widths)
        self.fusions = nn.ModuleList(_Fusion(channels, skip=n > 0) for n in range(count))
        self.head = nn.Sequential(
            nn.Conv2d(channels, channels, kernel_size=3, padding=1),
            nn.ReLU(),
            nn.Dropout2d(dropout),
            nn.Conv2d(channels, num_classes, kernel_size=1),
        )

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at twice the size of the finest map: at 8 times a plain transformer's grid."""
        maps = [project(feature) for project, feature in zip(self.projects, features, strict=True)]
        if self.resizes is not None:
            maps = [resize(feature) for resize, feature in zip(self.resizes, maps, strict=True)]
        maps = [narrow(feature) for narrow, feature in zip(self.narrow, maps, strict=True)]
        fused = maps[-1]
        finer = [*maps[-2::-1], None]
        for place, (fusion, following) in enumerate(zip(self.fusions, finer, strict=True)):
            skip = maps[-1 - place] if place else None
            height, width = maps[0].shape[-2:]
            size = (2 * height, 2 * width) if following is None else following.shape[-2:]
            fused = fusion(fused, skip, size)
        return self.head(fused)


def _resize(place: int, width: int) -> nn.Module:
    """To 4, 2, 1 or 1/2 times the size."""
    return (
        nn.ConvTranspose2d(width, width, kernel_size=4, stride=4),
        nn.ConvTranspose2d(width, width, kernel_size=2, stride=2),
        nn.Identity(),
        nn.Conv2d(width, width, kernel_size=3, stride=2, padding=1),
    )[place]


class _Fusion(nn.Module):
    """A coarser result and the next finer map, added, refined and enlarged."""

    def __init__(self, channels: int, *, skip: bool) -> None:
        super().__init__()
        self.skip = _Residual(channels) if skip else None
        self.refine = _Residual(channels)
        self.out = nn.Conv2d(channels, channels, kernel_size=1)

    def forward(self, fused: Tensor, skip: Tensor | None, size: Sequence[int]) -> Tensor:
        if self.skip is not None:
            fused = fused + self.skip(skip)
        refined = self.refine(fused)
        return self.out(F.interpolate(refined, list(size), mode="bilinear", align_corners=True))


class _Residual(nn.Module):
    """Two convolutions, each after an activation, added to their input."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, kernel_size=3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.conv2(F.relu(self.conv1(F.relu(features))))
