"""ViT-Adapter on DINOv2: a plain vision transformer that gives feature maps at four strides.

Source: Chen et al., "Vision Transformer Adapter for Dense Predictions", ICLR 2023, arXiv
2205.08534, in the sizes of VFM-UDA++ (Englert et al., arXiv 2503.10685, its code at effbb03b).
There the adapter begins with weights from a training on ImageNet; here, where no file of them can
be read, it begins at random.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.encoders.base import (
    Encoder,
    EncoderConfig,
    EncoderFamily,
    FeatureMaps,
    HideTokens,
)
from uda.models.encoders.deformable import DeformableAttention, Grid, centers
from uda.models.encoders.vit import SIZES, refuse_imagenet
from uda.models.encoders.vit_blocks import VitSize
from uda.models.encoders.vit_dinov2 import DinoV2
from uda.models.encoders.weights import load_file

_STRIDES = (4, 8, 16, 32)
_MOMENTUM = 0.01  # of the batch normalization of the maps
_LAST_EXTRACTORS = 3  # of the last interaction; the others have one
_STD = 0.02  # of linear layers


class VitAdapter(Encoder):
    """A convolutional prior of the image, which the transformer's tokens and its own cells exchange
    information with before and after each quarter of the blocks; and the sums of both."""

    file_kind = DinoV2.file_kind
    prefixes = DinoV2.prefixes
    # Patches of 14 pixels and cells of 8 are whole; of coarser cells, there are a few more.
    divisor = 56
    strides = _STRIDES

    def __init__(self, name: str, size: VitSize, *, drop_path: float = 0.0) -> None:
        super().__init__()
        self.title = name
        width = size.channels
        self.channels = (width,) * len(_STRIDES)
        self.vit = DinoV2(name.removesuffix("_adapter"), size, drop_path=drop_path)
        self.vit.norm.requires_grad_(False)  # not used
        self.prior = SpatialPrior(width, first=width // size.heads)
        self.levels = nn.Parameter(torch.empty(3, width))
        self.interactions = nn.ModuleList(
            Interaction(width, size.heads, extractors=count)
            for count in (1, 1, 1, _LAST_EXTRACTORS)
        )
        self.up = nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width, momentum=_MOMENTUM) for _ in _STRIDES)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.normal_(self.levels)
        for layer in self.interactions.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, std=_STD)
                nn.init.zeros_(layer.bias)
        for layer in self.interactions.modules():
            if isinstance(layer, DeformableAttention):
                layer.initialize()

    def forward(self, images: Tensor) -> FeatureMaps:
        """Four maps of one width at strides 4, 8, 16 and 32, rounded up.

        images: (N, 3, H, W) float, normalized, H and W multiples of `divisor`
        """
        return self._maps(images, None)

    def hiding(self, images: Tensor, hide_tokens: HideTokens) -> FeatureMaps:
        """As `forward`, with the mask token for some patches; the prior sees the whole image."""
        return self._maps(images, hide_tokens)

    def _maps(self, images: Tensor, hide_tokens: HideTokens | None) -> FeatureMaps:
        finest, *others = self.run(self.prior, images)
        sizes = [(cells.shape[2], cells.shape[3]) for cells in others]
        cells = torch.cat([_tokens(m) + n for m, n in zip(others, self.levels, strict=True)], dim=1)
        tokens, _ = self.vit.embed(images, hide_tokens)
        grid = (images.shape[2] // self.vit.patch, images.shape[3] // self.vit.patch)
        here = centers(grid, tokens)
        there = torch.cat([centers(size, tokens) for size in sizes])
        after = []
        for interaction, blocks in zip(self.interactions, self._quarters(), strict=True):
            assert isinstance(interaction, Interaction)
            patches = self.run(interaction.injector, tokens[:, 1:], here, cells, sizes)
            tokens = torch.cat((tokens[:, :1], patches), dim=1)
            for block in blocks:
                tokens = self.run(block, tokens, None)
            patches = tokens[:, 1:]
            for extractor in interaction.extractors:
                cells = self.run(extractor, cells, there, patches, grid, sizes)
            after.append(_as_map(patches, grid))
        parts = cells.split([rows * columns for rows, columns in sizes], dim=1)
        maps = [_as_map(part, size) for part, size in zip(parts, sizes, strict=True)]
        maps = [finest + self.up(maps[0]), *maps]
        return tuple(
            norm(m + F.interpolate(p, m.shape[-2:], mode="bilinear", align_corners=False))
            for norm, m, p in zip(self.norms, maps, after, strict=True)
        )

    def _quarters(self) -> list[list[nn.Module]]:
        blocks = list(self.vit.blocks)
        ends = [len(blocks) * quarter // 4 for quarter in range(5)]
        return [blocks[start:end] for start, end in pairwise(ends)]

    def layers(self) -> list[list[nn.Parameter]]:
        """Those of the transformer, as `DinoV2.layers`."""
        return self.vit.layers()

    def added_parameters(self) -> list[nn.Parameter]:
        """All but the transformer's."""
        known = {id(p) for p in self.vit.parameters()}
        return [p for p in self.parameters() if id(p) not in known]

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """Those of the transformer alone, as `DinoV2.entries`."""
        return {f"vit.{name}": value for name, value in self.vit.entries(state).items()}


def _tokens(cells: Tensor) -> Tensor:
    return cells.flatten(2).transpose(1, 2)


def _as_map(tokens: Tensor, size: Grid) -> Tensor:
    return tokens.transpose(1, 2).unflatten(2, size)


class SpatialPrior(nn.Module):
    """Convolutions from an image to maps of one width at strides 4, 8, 16 and 32."""

    def __init__(self, channels: int, *, first: int) -> None:
        """`first`: channels at strides 2 and 4; there are twice and four times as many then."""
        super().__init__()
        self.stem = nn.Sequential(
            *_convolution(3, first, stride=2),
            *_convolution(first, first),
            *_convolution(first, first),
            nn.MaxPool2d(kernel_size=3, stride=2, padding=1),
        )
        widths = (first, 2 * first, 4 * first, 4 * first)
        self.downs = nn.ModuleList(
            nn.Sequential(*_convolution(before, after, stride=2))
            for before, after in pairwise(widths)
        )
        self.projects = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        maps = [self.stem(images)]
        for down in self.downs:
            maps.append(down(maps[-1]))
        return [project(m) for project, m in zip(self.projects, maps, strict=True)]


def _convolution(before: int, after: int, *, stride: int = 1) -> Sequence[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)


class Interaction(nn.Module):
    """What surrounds a quarter of the blocks."""

    def __init__(self, channels: int, heads: int, *, extractors: int) -> None:
        super().__init__()
        self.injector = Injector(channels, heads)
        self.extractors = nn.ModuleList(Extractor(channels, heads) for _ in range(extractors))


class Injector(nn.Module):
    """The transformer's patches look at the prior's cells. It begins without effect."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(channels)
        self.norm = nn.LayerNorm(channels)
        self.attention = DeformableAttention(channels, heads, levels=3)
        self.gamma = nn.Parameter(torch.zeros(channels))

    def forward(
        self, patches: Tensor, places: Tensor, cells: Tensor, sizes: Sequence[Grid]
    ) -> Tensor:
        found = self.attention(self.query_norm(patches), places, self.norm(cells), sizes)
        return patches + self.gamma * found


class Extractor(nn.Module):
    """The prior's cells look at the transformer's patches, then at their neighbors."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.query_norm = nn.LayerNorm(channels)
        self.norm = nn.LayerNorm(channels)
        self.attention = DeformableAttention(channels, heads, levels=1)
        self.feed_norm = nn.LayerNorm(channels)
        self.narrow = nn.Linear(channels, channels // 4)
        self.neighbors = nn.Conv2d(channels // 4, channels // 4, 3, padding=1, groups=channels // 4)
        self.widen = nn.Linear(channels // 4, channels)

    def forward(
        self, cells: Tensor, places: Tensor, patches: Tensor, grid: Grid, sizes: Sequence[Grid]
    ) -> Tensor:
        cells = cells + self.attention(self.query_norm(cells), places, self.norm(patches), [grid])
        narrow = self.narrow(self.feed_norm(cells))
        parts = narrow.split([rows * columns for rows, columns in sizes], dim=1)
        mixed = [
            _tokens(self.neighbors(_as_map(part, size)))
            for part, size in zip(parts, sizes, strict=True)
        ]
        return cells + self.widen(F.gelu(torch.cat(mixed, dim=1)))


_KINDS = {f"dinov2_vit{letter}14_adapter": size for letter, size in SIZES.items()}


def build(config: EncoderConfig) -> VitAdapter:
    """The network `config.name`, such as dinov2_vitl14_adapter, whose `provenance` says which
    weights its transformer has; the adapter's are random. `config.weights` is "none" or the path of
    DINOv2's file without registers.

    Raises InputError on settings that it does not have, and when the weights cannot be had or are
    another network's.
    """
    config.refuse("output_stride", "patch_norm_eps")
    vit = config.name.removesuffix("_adapter")
    refuse_imagenet(config, f"{vit}_pretrain.pth")
    size = _KINDS[config.name].of_width(config)
    encoder = VitAdapter(config.name, size, drop_path=config.drop_path or 0.0)
    if config.weights != "none":
        load_file(encoder.vit, config, allowed="none")
        encoder.provenance = f"{encoder.vit.provenance}, adapter random"
    return encoder


ADAPTER = EncoderFamily(
    names=", ".join(_KINDS), includes=_KINDS.__contains__, build=build, hides_tokens=True
)
