"""DINOv2's vision transformers, with and without registers.

Source: Oquab et al., arXiv 2304.07193; registers are of Darcet et al., ICLR 2024, arXiv 2309.16588;
positions are resized as in facebookresearch/dinov2@b8931f7b.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.encoders.base import EncoderConfig, EncoderFamily, HideTokens
from uda.models.encoders.vit import SIZES, VisionTransformer, refuse_imagenet
from uda.models.encoders.vit_blocks import Rotation, VitSize

_SIDE = 37  # of the grid of learned positions: images of 518 pixels
_REGISTERS = 4


class DinoV2(VisionTransformer):
    """Learned positions, which are resized to the image."""

    file_kind = "DINOv2 backbone's state dict"
    patch = 14
    norm_eps = 1e-6

    def __init__(
        self, name: str, size: VitSize, *, registers: int = 0, drop_path: float = 0.0
    ) -> None:
        super().__init__(name, size, drop_path=drop_path)
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + _SIDE**2, size.channels))
        self.register_tokens = (
            nn.Parameter(torch.empty(1, registers, size.channels)) if registers else None
        )
        self.initialize()

    def embed(
        self, images: Tensor, hide_tokens: HideTokens | None = None
    ) -> tuple[Tensor, Rotation | None]:
        """Class token, registers, patches; the registers have no positions."""
        patches = self.patches(images, hide_tokens)
        rows, columns = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        class_position, positions = self.pos_embed[:, :1], self.positions(rows, columns)
        class_token = (self.cls_token + class_position).expand(images.shape[0], -1, -1)
        registers = (
            ()
            if self.register_tokens is None
            else (self.register_tokens.expand(images.shape[0], -1, -1),)
        )
        return torch.cat((class_token, *registers, patches + positions), dim=1), None

    def positions(self, rows: int, columns: int) -> Tensor:
        """(1, patches, D): the learned positions for a grid, in float32 as in the original.

        Files with registers were trained with positions resized to the grid, those without with
        scale factors a bit too large, which the sampling follows.
        """
        learned = self.pos_embed[:, 1:]
        if rows == columns == _SIDE:
            return learned
        grid = learned.float().unflatten(1, (_SIDE, _SIDE)).permute(0, 3, 1, 2)
        if self.register_tokens is not None:
            resized = F.interpolate(grid, size=(rows, columns), mode="bicubic", antialias=True)
        else:
            factors = ((rows + 0.1) / _SIDE, (columns + 0.1) / _SIDE)
            resized = F.interpolate(grid, scale_factor=factors, mode="bicubic")
        return resized.flatten(2).transpose(1, 2).to(learned.dtype)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Kind:
    size: VitSize
    registers: int


_KINDS = {
    f"dinov2_vit{letter}14{suffix}": _Kind(size=size, registers=registers)
    for suffix, registers in (("", 0), ("_reg", _REGISTERS))
    for letter, size in SIZES.items()
}


def build(config: EncoderConfig) -> DinoV2:
    """The network `config.name`, such as dinov2_vitb14_reg, whose `provenance` says which weights
    it has. `config.weights` is "none" (random) or the path of its authors' file.

    Raises InputError on settings that it does not have, and when the weights cannot be had or are
    another network's.
    """
    config.refuse("output_stride", "patch_norm_eps")
    kind = _KINDS[config.name]
    count = f"_reg{kind.registers}" if kind.registers else ""
    refuse_imagenet(config, f"{config.name.removesuffix('_reg')}{count}_pretrain.pth")
    encoder = DinoV2(
        config.name,
        kind.size.of_width(config),
        registers=kind.registers,
        drop_path=config.drop_path or 0.0,
    )
    encoder.load(config)
    return encoder


DINOV2 = EncoderFamily(
    names=", ".join(_KINDS), includes=_KINDS.__contains__, build=build, hides_tokens=True
)
