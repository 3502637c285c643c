"""Mix Transformers MiT-B0 to B5, the encoders of SegFormer, DAFormer and HRDA.

Source: Xie et al., "SegFormer", NeurIPS 2021, arXiv 2105.15203, sections 3.1 and A; drop path and
epsilons of normalization as in the code of its authors, names of parameters as in their files.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple, cast

import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.encoders.base import Encoder, EncoderConfig, EncoderFamily, FeatureMaps
from uda.models.encoders.drop_path import DropPath, rates
from uda.models.encoders.mit_weights import from_transformers, load_hub
from uda.models.encoders.weights import load_file
from uda.utilities.errors import InputError, require
from uda.utilities.weight_files import PREFIXES

_EPS = 1e-6  # of the normalization in blocks and after stages
_PATCH_EPS = 1e-5  # PyTorch's default, which the authors left in patch embeddings and reduction
_DROP_PATH = 0.1
_HEADS = (1, 2, 5, 8)
_REDUCTIONS = (8, 4, 2, 1)  # of keys and values, per side
_STRIDES = (4, 8, 16, 32)
_SMALLEST = 29  # pixels of a side of which one cell of the first stage's reduction remains


class _Size(NamedTuple):
    channels: tuple[int, int, int, int]
    depths: tuple[int, int, int, int]


_WIDE = (64, 128, 320, 512)
SIZES = {
    "mit_b0": _Size((32, 64, 160, 256), (2, 2, 2, 2)),
    "mit_b1": _Size(_WIDE, (2, 2, 2, 2)),
    "mit_b2": _Size(_WIDE, (3, 4, 6, 3)),
    "mit_b3": _Size(_WIDE, (3, 4, 18, 3)),
    "mit_b4": _Size(_WIDE, (3, 8, 27, 3)),
    "mit_b5": _Size(_WIDE, (3, 6, 40, 3)),
}


class _PatchEmbedding(nn.Module):
    """Overlapping patches of a map as tokens of a map of lower resolution."""

    def __init__(self, in_channels: int, channels: int, *, first: bool, eps: float) -> None:
        super().__init__()
        kernel, stride = (7, 4) if first else (3, 2)
        self.proj = nn.Conv2d(in_channels, channels, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.LayerNorm(channels, eps=eps)

    def forward(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (N, h * w, C), and (h, w)."""
        patches = self.proj(images)
        return self.norm(_tokens(patches)), (patches.shape[2], patches.shape[3])


class _Attention(nn.Module):
    """Attention from every token to the tokens of cells of `reduction` x `reduction`."""

    def __init__(self, channels: int, heads: int, reduction: int, *, patch_eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        self.sr: nn.Conv2d | None = None
        if reduction > 1:
            self.sr = nn.Conv2d(channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels, eps=patch_eps)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        n, count, channels = tokens.shape
        reduced = tokens
        if self.sr is not None:
            reduced = self.norm(_tokens(self.sr(_image(tokens, size))))
        queries = self.q(tokens).view(n, count, self.heads, -1).transpose(1, 2)
        both = self.kv(reduced).view(n, reduced.shape[1], 2, self.heads, -1)
        keys, values = both.permute(2, 0, 3, 1, 4).unbind()
        mixed = F.scaled_dot_product_attention(queries, keys, values)
        return self.proj(mixed.transpose(1, 2).reshape(n, count, channels))


class _Depthwise(nn.Module):
    """A 3x3 convolution of each channel; a module of its own for the sake of its name."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return _tokens(self.dwconv(_image(tokens, size)))


class _MixFFN(nn.Module):
    """A perceptron with a depthwise convolution, which tells a token where it is."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, 4 * channels)
        self.dwconv = _Depthwise(4 * channels)
        self.fc2 = nn.Linear(4 * channels, channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(tokens), size)))


class _Block(nn.Module):
    def __init__(
        self, channels: int, heads: int, reduction: int, *, drop_path: float, patch_eps: float
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, eps=_EPS)
        self.attn = _Attention(channels, heads, reduction, patch_eps=patch_eps)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(channels, eps=_EPS)
        self.mlp = _MixFFN(channels)

    def forward(self, tokens: Tensor, size: tuple[int, int]) -> Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), size))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens), size))


class MixTransformer(Encoder):
    """A MiT without its classifier; parameters are named as in the files of its authors."""

    file_kind = "MiT state dict of SegFormer's authors (such as mit_b5.pth) or of transformers"
    prefixes = PREFIXES

    def __init__(self, name: str, *, drop_path: float, patch_eps: float) -> None:
        """Random weights; use `build`, which loads weights.

        `drop_path` is the rate of the last block; the first has 0, the others are evenly between.
        """
        super().__init__()
        size = SIZES[name]
        self.title = f"MiT-{name.removeprefix('mit_').upper()}"
        self.channels, self.strides = size.channels, _STRIDES
        of_blocks = iter(rates(drop_path, sum(size.depths)))
        for stage, depth in enumerate(size.depths):
            channels = size.channels[stage]
            before = 3 if stage == 0 else size.channels[stage - 1]
            embed = _PatchEmbedding(before, channels, first=stage == 0, eps=patch_eps)
            block = partial(
                _Block, channels, _HEADS[stage], _REDUCTIONS[stage], patch_eps=patch_eps
            )
            self.add_module(f"patch_embed{stage + 1}", embed)
            self.add_module(
                f"block{stage + 1}",
                nn.ModuleList([block(drop_path=next(of_blocks)) for _ in range(depth)]),
            )
            self.add_module(f"norm{stage + 1}", nn.LayerNorm(channels, eps=_EPS))
        self.apply(_initialize)

    def forward(self, images: Tensor) -> FeatureMaps:
        """The normalized map of each stage, its sides rounded up.

        images: (N, 3, H, W) float, normalized

        Raises InputError on sides below 29 pixels.
        """
        height, width = images.shape[-2:]
        require(
            min(height, width) >= _SMALLEST,
            f"{self.title} was given {height}x{width} pixels; allowed: sides of {_SMALLEST} or "
            "more",
        )
        maps = [images]
        for stage in range(len(self.channels)):
            maps.append(self._stage(stage, maps[-1]))
        return tuple(maps[1:])

    def _stage(self, stage: int, images: Tensor) -> Tensor:
        embed, blocks, norm = self._modules_of(stage)
        tokens, size = embed(images)
        for block in blocks:
            tokens = self.run(block, tokens, size)
        return _image(norm(tokens), size)

    def _modules_of(self, stage: int) -> tuple[nn.Module, nn.ModuleList, nn.Module]:
        blocks = self.get_submodule(f"block{stage + 1}")
        return (
            self.get_submodule(f"patch_embed{stage + 1}"),
            cast(nn.ModuleList, blocks),
            self.get_submodule(f"norm{stage + 1}"),
        )

    def layers(self) -> list[list[nn.Parameter]]:
        """Those of the first patch embedding, then of each block; with the first and the last block
        of a stage, its patch embedding and its norm."""
        groups: list[list[nn.Parameter]] = []
        for stage in range(len(self.channels)):
            embed, blocks, norm = self._modules_of(stage)
            of_blocks = [list(block.parameters()) for block in blocks]
            of_blocks[-1] += norm.parameters()
            if stage == 0:
                groups.append(list(embed.parameters()))
            else:
                of_blocks[0] = [*embed.parameters(), *of_blocks[0]]
            groups += of_blocks
        return groups

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """All but the classifier, from the names of the authors or of transformers."""
        return {
            name: value
            for name, value in from_transformers(state).items()
            if not name.startswith("head.")
        }


def build(config: EncoderConfig) -> MixTransformer:
    """A MiT whose `provenance` says which weights it has.

    `config.weights` is "none" (random), "imagenet" (those of the authors, from nvidia/mit-b0 to b5
    on the Hugging Face hub) or the path of a state dict, whose classifier is ignored.

    Raises InputError on settings that it does not have, and when the weights cannot be had or
    belong to another network.
    """
    config.refuse("width")
    if config.output_stride not in (None, 32):
        option = config.option("output_stride")
        raise InputError(
            f"{option} is {config.output_stride}, but the maps of {config.name} have strides "
            f"{', '.join(map(str, _STRIDES))}: use --set {option}=none"
        )
    eps = config.patch_norm_eps
    require(
        eps is None or 0 < eps < 1,
        f"{config.option('patch_norm_eps')} is {eps}; allowed: above 0 and below 1, or none for "
        f"{_PATCH_EPS}",
    )
    encoder = MixTransformer(
        config.name,
        drop_path=_DROP_PATH if config.drop_path is None else config.drop_path,
        patch_eps=_PATCH_EPS if eps is None else eps,
    )
    if config.weights == "imagenet":
        load_hub(encoder, config)
    elif config.weights != "none":
        load_file(encoder, config, allowed="none, imagenet")
    return encoder


MIX_TRANSFORMERS = EncoderFamily(names=", ".join(SIZES), includes=SIZES.__contains__, build=build)


def _tokens(image: Tensor) -> Tensor:
    """(N, C, h, w) as (N, h * w, C)."""
    return image.flatten(2).transpose(1, 2)


def _image(tokens: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, h * w, C) as (N, C, h, w)."""
    return tokens.transpose(1, 2).unflatten(2, size)


def _initialize(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        # The authors cut at +-2, a hundred standard deviations, which is no cut.
        nn.init.normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        outgoing = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / outgoing))
        assert module.bias is not None, "every convolution here has one"
        nn.init.zeros_(module.bias)
