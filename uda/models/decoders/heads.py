"""What the heads of several networks share."""

from typing import Literal

from torch import Tensor, nn

from uda.utilities.errors import InputError


def initialize_heads(*heads: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Kaiming for what a norm follows; N(0, 0.01), bias 0, for the classifiers, which alone have
    a bias: a new network is unsure of every pixel."""
    for head in heads:
        for layer in head.modules():
            if not isinstance(layer, nn.Conv2d):
                continue
            if layer.bias is None:
                nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)


def refuse_single_image(norm: nn.Module, features: Tensor, *, heads: str, instead: str) -> None:
    """Raises InputError when batch normalization of a pooled image is to be trained on one image.

    norm: what follows the pooling; features: (N, C, h, w), what is pooled. `heads` and `instead`
    are words: what cannot be trained, and what else to do.
    """
    # SyncBatchNorm, no subclass of it, sees the other processes' images too.
    if isinstance(norm, nn.BatchNorm2d) and norm.training and len(features) == 1:
        raise InputError(
            f"a batch of 1 image cannot train {heads} (the pooled image has one value per "
            f"channel): {instead}"
        )
