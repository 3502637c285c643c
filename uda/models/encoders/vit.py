"""Plain vision transformers: what DINOv2's and DINOv3's have in common.

Source: Dosovitskiy et al., ICLR 2021, arXiv 2010.11929; LayerScale is of Touvron et al., ICCV 2021,
arXiv 2103.17239.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uda.models.encoders.base import Encoder, EncoderConfig, FeatureMaps, HideTokens
from uda.models.encoders.drop_path import rates
from uda.models.encoders.vit_blocks import Block, Rotation, VitSize
from uda.models.encoders.vit_names import with_original_names
from uda.models.encoders.weights import load_file
from uda.utilities.errors import require
from uda.utilities.weight_files import is_array

_MAPS = 4


# By the letter in the encoders' names.
SIZES = {"s": VitSize(384, 12, 6), "b": VitSize(768, 12, 12), "l": VitSize(1024, 24, 16)}


class VisionTransformer(Encoder):
    """A class token, extra tokens and one token for each patch, in blocks of one width.

    Parameters are named as in the files of DINOv2 and DINOv3. Their `mask_token` stands for tokens
    that a view hides, and for nothing else.
    """

    prefixes = ("module.", "backbone.", "model.", "_orig_mod.", "dinov2.", "dinov2_with_registers.")
    patch: ClassVar[int]  # pixels along a side
    norm_eps: ClassVar[float]
    # Entries of files that it does not use: names, and beginnings that end with a dot.
    unused: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, size: VitSize, *, drop_path: float = 0.0) -> None:
        """Random weights. `drop_path`: how likely a training step leaves out the branches of the
        last block for an image; it grows linearly from 0 at the first.
        """
        super().__init__()
        self.size = size
        self.title = name
        self.divisor = self.patch
        self.channels = (size.channels,) * _MAPS
        self.strides = (self.patch,) * _MAPS
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.channels))
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, size.channels, self.patch, stride=self.patch)}
        )
        self.blocks = nn.ModuleList(map(self._block, rates(drop_path, size.blocks)))
        self.norm = nn.LayerNorm(size.channels, eps=self.norm_eps)
        self.mask_token = nn.Parameter(torch.zeros(1, size.channels))

    def _block(self, drop_path: float) -> "Block":
        return Block(self.size, eps=self.norm_eps, drop_path=drop_path)

    @abstractmethod
    def embed(
        self, images: Tensor, hide_tokens: HideTokens | None = None
    ) -> tuple[Tensor, Rotation | None]:
        """The first block's input (N, tokens, D), class token first and patches last, row by row;
        and how to rotate the patches' queries and keys.
        """

    def forward(self, images: Tensor) -> FeatureMaps:
        """The patches after the last block of each quarter, all at the stride of a patch.

        Each has passed the final normalization, as in the originals' get_intermediate_layers: the
        residual stream grows with depth, and a decoder finds all maps at one scale.

        images: (N, 3, H, W) float, normalized, H and W multiples of `divisor`
        """
        return self._maps(images, self.hidden(images))

    def hiding(self, images: Tensor, hide_tokens: HideTokens) -> FeatureMaps:
        """As `forward`, with the mask token for some patches, before their positions are added;
        never for the class token."""
        return self._maps(images, self.hidden(images, hide_tokens))

    def _maps(self, images: Tensor, hidden: Sequence[Tensor]) -> FeatureMaps:
        rows, columns = images.shape[-2] // self.patch, images.shape[-1] // self.patch
        patches = (self.norm(tokens)[:, -rows * columns :] for tokens in hidden)
        # Views: as tokens are stored, the maps are channels-last.
        return tuple(p.unflatten(1, (rows, columns)).permute(0, 3, 1, 2) for p in patches)

    def hidden(self, images: Tensor, hide_tokens: HideTokens | None = None) -> list[Tensor]:
        """All tokens (N, tokens, D) after the last block of each quarter, not normalized.

        images: as in `forward`; `hide_tokens`: as in `hiding`

        Raises ValueError on other sizes: the rest of the image would be left out.
        """
        if images.shape[-2] % self.patch or images.shape[-1] % self.patch:
            raise ValueError(
                f"images are {tuple(images.shape)}; allowed: heights and widths that are multiples "
                f"of {self.patch}"
            )
        tokens, rotation = self.embed(images, hide_tokens)
        outputs = []
        for block in self.blocks:
            tokens = self.run(block, tokens, rotation)
            outputs.append(tokens)
        count = len(self.blocks) // _MAPS
        return outputs[count - 1 :: count]

    def patches(self, images: Tensor, hide_tokens: HideTokens | None) -> Tensor:
        """(N, patches, D), row by row, from images (N, 3, H, W).

        Raises ValueError when `hide_tokens` gives anything but (N, h, w) bool.
        """
        projected: Tensor = self.patch_embed["proj"](images)
        tokens = projected.flatten(2).transpose(1, 2)
        if hide_tokens is None:
            return tokens
        count, _, rows, columns = projected.shape
        hidden = hide_tokens(rows, columns)
        if hidden.shape != (count, rows, columns) or hidden.dtype != torch.bool:
            raise ValueError(
                f"hide_tokens gave {tuple(hidden.shape)} {hidden.dtype}; needed: "
                f"{(count, rows, columns)} bool"
            )
        hidden = hidden.to(tokens.device, non_blocking=True).flatten(1).unsqueeze(2)
        return torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)

    def layers(self) -> list[list[nn.Parameter]]:
        """Those of the embedding and its tokens, then of each block; the final normalization is
        with the last block."""
        blocks = [list(block.parameters()) for block in self.blocks]
        later = {id(p) for block in blocks for p in block} | {id(p) for p in self.norm.parameters()}
        blocks[-1] += self.norm.parameters()
        return [[p for p in self.parameters() if id(p) not in later], *blocks]

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """All but what only pre-training used; also from the names that transformers gives them. A
        file without a mask token leaves it as it is.

        Raises InputError when they are those of another of these networks.
        """
        state = with_original_names(state)
        found = vit_in(state)
        require(
            found in (None, self.title),
            f"the file holds the weights of {found}, and the encoder is {self.title}: use --set "
            f"model.encoder.name={found}",
        )
        state.setdefault("mask_token", self.mask_token.detach())
        mask = state["mask_token"]
        if is_array(mask) and mask.shape == (1, 1, self.size.channels):  # as transformers has it
            state["mask_token"] = mask.flatten(1)
        dotted = tuple(name for name in self.unused if name.endswith("."))
        return {
            name: value
            for name, value in state.items()
            if name not in self.unused and not name.startswith(dotted)
        }

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        *others: Any,  # noqa: ANN401
    ) -> None:
        # Older snapshots have none: the network had no use for it.
        state_dict.setdefault(f"{prefix}mask_token", self.mask_token.detach())
        super()._load_from_state_dict(state_dict, prefix, *others)

    def initialize(self) -> None:
        """Draws weights from a normal distribution of deviation 0.02; biases and the mask token
        are 0."""
        for name, parameter in self.named_parameters():
            if name.endswith(("bias", "mask_token")):
                nn.init.zeros_(parameter)
            elif parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)

    def load(self, config: EncoderConfig) -> None:
        """Fills the network from the file that `config.weights` names, unless it is "none".

        Raises InputError when there is no such file, or it holds another network.
        """
        if config.weights != "none":
            load_file(self, config, allowed="none")


def refuse_imagenet(config: EncoderConfig, file: str) -> None:
    """Raises InputError when ImageNet's weights are asked for; `file` is what there is instead."""
    option = config.option("weights")
    require(
        config.weights != "imagenet",
        f"{option} is 'imagenet', but {config.name} was not trained on ImageNet's labels; allowed: "
        f"--set {option}=none, or the path of the file of its authors, such as {file}",
    )


def vit_in(state: Mapping[str, object]) -> str | None:
    """The encoder whose weights a state dict holds, by its tensors; None when it is none of these.

    With or without registers, DINOv2's networks are different ones: see `DinoV2.positions`.
    """
    named = with_original_names(state).items()
    tensors = {n: t for n, t in named if isinstance(t, Tensor) and not t.is_nested}
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    projection = shapes.get("patch_embed.proj.weight", ())
    sizes = {
        letter: size
        for letter, size in SIZES.items()
        if f"blocks.{size.blocks - 1}.ls2.gamma" in shapes
        and f"blocks.{size.blocks}.ls2.gamma" not in shapes
    }
    for letter, size in sizes.items():
        if projection == (size.channels, 3, 14, 14) and "pos_embed" in shapes:
            return f"dinov2_vit{letter}14" + ("_reg" if "register_tokens" in shapes else "")
        if projection == (size.channels, 3, 16, 16) and "storage_tokens" in shapes:
            return f"dinov3_vit{letter}16"
    return None
