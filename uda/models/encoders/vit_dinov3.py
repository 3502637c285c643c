"""DINOv3's vision transformers.

Source: Simeoni et al., arXiv 2508.10104, and facebookresearch/dinov3@6876159a; rotary positions are
of Su et al., arXiv 2104.09864.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from uda.models.encoders.base import EncoderConfig, EncoderFamily, HideTokens
from uda.models.encoders.vit import SIZES, VisionTransformer, refuse_imagenet
from uda.models.encoders.vit_blocks import Block, Rotation, VitSize

_STORAGE_TOKENS = 4
_BASE = 100  # of the periods


class DinoV3(VisionTransformer):
    """Four storage tokens (registers), and positions that rotate queries and keys.

    The original's training scales the coordinates at random; this network never does.
    """

    file_kind = "DINOv3 backbone's state dict"
    patch = 16
    norm_eps = 1e-5
    # The normalization of local crops is in the files that were trained on satellite images.
    unused = ("local_cls_norm.",)

    def __init__(self, name: str, size: VitSize, *, drop_path: float = 0.0) -> None:
        super().__init__(name, size, drop_path=drop_path)
        self.storage_tokens = nn.Parameter(torch.empty(1, _STORAGE_TOKENS, size.channels))
        self.rope_embed = _Periods(size.channels // size.heads)
        self.initialize()

    def _block(self, drop_path: float) -> Block:
        return Block(self.size, eps=self.norm_eps, drop_path=drop_path, key_bias=False)

    def embed(
        self, images: Tensor, hide_tokens: HideTokens | None = None
    ) -> tuple[Tensor, Rotation | None]:
        """Class token, storage tokens, patches; only the patches are rotated."""
        patches = self.patches(images, hide_tokens)
        rows, columns = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        first = (
            token.expand(images.shape[0], -1, -1) for token in (self.cls_token, self.storage_tokens)
        )
        return torch.cat((*first, patches), dim=1), self.rope_embed(rows, columns)

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """All but what only pre-training used, and the masks that say where a bias counts."""
        periods = "rope_embed.periods"  # which transformers computes
        return {periods: self.get_buffer(periods)} | {
            name: value
            for name, value in super().entries(state).items()
            if not (name.endswith(".attn.qkv.bias_mask") and self._is_mask(value))
        }

    def _is_mask(self, value: object) -> bool:
        """Whether it keeps the bias of queries and values, and that of keys away; any other mask
        stays among the entries, and so is refused."""
        if not isinstance(value, Tensor) or value.shape != (3 * self.size.channels,):
            return False
        query, key, that = value.chunk(3)
        return bool((query == 1).all() and (key == 0).all() and (that == 1).all())


class _Periods(nn.Module):
    """Angles from the places of patches."""

    periods: Tensor  # (head channels / 4,): a constant, but the files' are rounded

    def __init__(self, channels: int) -> None:
        super().__init__()
        exponents = torch.arange(channels // 4, dtype=torch.float32) / (channels // 4)
        self.register_buffer("periods", _BASE**exponents)

    def forward(self, rows: int, columns: int) -> Rotation:
        """Sine and cosine (patches, head channels): angles of the row, then of the column, twice
        over. Coordinates go from -1 to 1 whatever the image's size.
        """
        periods = self.periods.to(torch.promote_types(self.periods.dtype, torch.float32))
        down, right = (
            2 * (torch.arange(count, dtype=periods.dtype, device=periods.device) + 0.5) / count - 1
            for count in (rows, columns)
        )
        places = torch.stack(torch.meshgrid(down, right, indexing="ij"), dim=-1).flatten(0, 1)
        angles = (2 * math.pi * places[:, :, None] / periods).flatten(1)
        angles = torch.cat((angles, angles), dim=1)
        return angles.sin(), angles.cos()


_KINDS = {f"dinov3_vit{letter}16": size for letter, size in SIZES.items()}


def build(config: EncoderConfig) -> DinoV3:
    """The network `config.name`, such as dinov3_vitb16, whose `provenance` says which weights it
    has. `config.weights` is "none" (random) or the path of its authors' file.

    Raises InputError on settings that it does not have, and when the weights cannot be had or are
    another network's.
    """
    config.refuse("output_stride", "patch_norm_eps")
    refuse_imagenet(config, f"{config.name}_pretrain_lvd1689m-*.pth")
    size = _KINDS[config.name].of_width(config)
    encoder = DinoV3(config.name, size, drop_path=config.drop_path or 0.0)
    encoder.load(config)
    return encoder


DINOV3 = EncoderFamily(
    names=", ".join(_KINDS), includes=_KINDS.__contains__, build=build, hides_tokens=True
)
