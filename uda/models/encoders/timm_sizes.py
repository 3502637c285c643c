"""Networks of timm that are made for one size of images, such as Hiera, at other sizes."""

import math
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from uda.utilities.extras import require_extra

_POSITIONS = "pos_embed"  # the last part of the names of parameters that are resized
_MOST = 8  # sizes whose networks are kept

Size = tuple[int, int]


class OtherSizes:
    """Runs a network with the layers that timm makes for another size of images.

    Of these layers only learned positions (1, positions, D) depend on the size; they are resized
    bicubically, with antialiasing, as timm does when it loads weights for another size. The
    others are the network's own.
    """

    def __init__(self, name: str, made_for: Size, **options: object) -> None:
        """`name`: timm's; `made_for`: (H, W); `options`: what `create_model` needs besides."""
        self.name = name
        self.made_for = made_for
        self.options = options
        self._networks: dict[Size, nn.Module] = {}

    def fits(self, network: nn.Module, size: Size) -> bool:
        """Whether the network can be run at this size."""
        own, other = network.state_dict(), self._at(size).state_dict()
        resized = [name for name in own if own[name].shape != other[name].shape]
        return not any(True for _ in network.buffers()) and all(
            name.rpartition(".")[2] == _POSITIONS
            and own[name].ndim == other[name].ndim == 3
            and own[name].shape[1] == math.prod(self._grid(own[name], self.made_for))
            and other[name].shape[1] == math.prod(self._grid(own[name], size))
            for name in resized
        )

    def run(self, network: nn.Module, images: Tensor) -> tuple[Tensor, ...]:
        """What the network returns for images (N, 3, H, W)."""
        size = (images.shape[-2], images.shape[-1])
        if size == self.made_for:
            return tuple(network(images))
        other = self._at(size)
        for own, its in zip(network.modules(), other.modules(), strict=True):
            its.training = own.training  # not all the same: drop path may be off alone
        shapes = {name: tensor.shape for name, tensor in other.state_dict().items()}
        tensors = {
            name: tensor if tensor.shape == shapes[name] else self._resized(tensor, size)
            for name, tensor in network.named_parameters()
        }
        return tuple(functional_call(other, tensors, (images,)))

    def _at(self, size: Size) -> nn.Module:
        """timm's network for this size, without memory for weights."""
        if size not in self._networks:
            if len(self._networks) >= _MOST:
                self._networks.pop(next(iter(self._networks)))
            timm = require_extra("timm", needed_by=f"timm/{self.name}")
            self._networks[size] = on_meta(timm, self.name, img_size=size, **self.options)
        return self._networks[size]

    def _grid(self, positions: Tensor, size: Size) -> Size:
        """Rows and columns of the positions for an image of that size."""
        stride = math.sqrt(math.prod(self.made_for) / positions.shape[1])
        return round(size[0] / stride), round(size[1] / stride)

    def _resized(self, positions: Tensor, size: Size) -> Tensor:
        grid = positions.float().unflatten(1, self._grid(positions, self.made_for))
        resized = F.interpolate(
            grid.permute(0, 3, 1, 2),
            size=self._grid(positions, size),
            mode="bicubic",
            antialias=True,
        )
        return resized.flatten(2).transpose(1, 2).to(positions.dtype)


def on_meta(timm: ModuleType, name: str, **options: object):  # type: ignore[no-untyped-def]  # noqa: ANN201
    """timm's network with its feature maps and without memory: any snapshot can name a huge one."""
    with torch.device("meta"):
        return timm.create_model(name, features_only=True, **options).eval()
