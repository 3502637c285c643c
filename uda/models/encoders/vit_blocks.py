"""The blocks of plain vision transformers.

Source: Dosovitskiy et al., ICLR 2021, arXiv 2010.11929; LayerScale is of Touvron et al., ICCV 2021,
arXiv 2103.17239.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.drop_path import DropPath
from uda.utilities.errors import require

Rotation = tuple[Tensor, Tensor]  # sine and cosine of angles, each (patches, head channels)

_LAYER_SCALE = 1e-5  # of untrained networks


class VitSize(NamedTuple):
    """Width and depth."""

    channels: int
    blocks: int
    heads: int

    def of_width(self, config: EncoderConfig) -> "VitSize":
        """The same with `config.width` channels in each head.

        Raises InputError unless it is a multiple of 4, as positions that rotate them need.
        """
        require(
            config.width >= 4 and config.width % 4 == 0,
            f"{config.option('width')} is {config.width}; allowed with {config.name}: multiples of "
            f"4, the channels of each of {self.heads} heads; published weights have 64",
        )
        return self._replace(channels=self.heads * config.width)


class Block(nn.Module):
    """Attention and a multilayer perceptron, each normalized before and scaled after."""

    def __init__(
        self, size: VitSize, *, eps: float, drop_path: float, key_bias: bool = True
    ) -> None:
        super().__init__()
        channels = size.channels
        self.norm1 = nn.LayerNorm(channels, eps=eps)
        self.attn = Attention(channels, size.heads, key_bias=key_bias)
        self.ls1 = LayerScale(channels)
        self.norm2 = nn.LayerNorm(channels, eps=eps)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(channels, 4 * channels), "fc2": nn.Linear(4 * channels, channels)}
        )
        self.ls2 = LayerScale(channels)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, rotation: Rotation | None) -> Tensor:
        """tokens: (N, tokens, D); returns the same shape"""
        attended = self.attn(self.norm1(tokens), rotation)
        tokens = tokens + self.drop_path(self.ls1(attended))
        widened = F.gelu(self.mlp["fc1"](self.norm2(tokens)))
        return tokens + self.drop_path(self.ls2(self.mlp["fc2"](widened)))


class Attention(nn.Module):
    """Self-attention with several heads; the projection's rows are queries, keys and values."""

    def __init__(self, channels: int, heads: int, *, key_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = (nn.Linear if key_bias else _WithoutKeyBias)(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, tokens: Tensor, rotation: Rotation | None) -> Tensor:
        """tokens: (N, tokens, D); returns the same shape"""
        parts = self.qkv(tokens).unflatten(2, (3, self.heads, -1))
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (N, heads, tokens, head channels)
        if rotation is not None:
            query, key = (_rotated(part, rotation).to(value.dtype) for part in (query, key))
        attended = F.scaled_dot_product_attention(query, key, value)
        return self.proj(attended.transpose(1, 2).flatten(2))


class _WithoutKeyBias(nn.Linear):
    """A projection to queries, keys and values whose bias counts for queries and values only."""

    def forward(self, tokens: Tensor) -> Tensor:
        query, key, value = self.bias.chunk(3)
        return F.linear(tokens, self.weight, torch.cat((query, torch.zeros_like(key), value)))


def _rotated(part: Tensor, rotation: Rotation) -> Tensor:
    """Queries or keys (N, heads, tokens, channels), those of the patches rotated: channel i and
    channel i + half are the coordinates of a point."""
    sine, cosine = rotation
    before = part.shape[2] - sine.shape[0]  # by shape: torch.export would make len a constant
    others, patches = part[:, :, :before], part[:, :, before:]
    first, second = patches.chunk(2, dim=-1)
    turned = patches * cosine + torch.cat((-second, first), dim=-1) * sine
    return torch.cat((others.to(turned.dtype), turned), dim=2)


class LayerScale(nn.Module):
    """A learned factor for each channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((channels,), _LAYER_SCALE))

    def forward(self, branch: Tensor) -> Tensor:
        return branch * self.gamma
