"""Functions for the heads of several networks."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from uda.utilities.errors import InputError


def initialize_heads(*heads: nn.Module, mode: Literal["fan_in", "fan_out"] = "fan_out") -> None:
    """Kaiming for convolutions before a norm; N(0, 0.01) and bias 0 for classifiers, the only
    ones with a bias: so an untrained network is uncertain at every pixel."""
    for head in heads:
        for layer in head.modules():
            if not isinstance(layer, nn.Conv2d):
                continue
            if layer.bias is None:
                nn.init.kaiming_normal_(layer.weight, mode=mode, nonlinearity="relu")
            else:
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)


def resized(features: Tensor, *, like: Tensor, align_corners: bool = False) -> Tensor:
    """`features` (N, C, h, w), bilinearly resized to the height and width of `like`."""
    return F.interpolate(
        features, size=like.shape[-2:], mode="bilinear", align_corners=align_corners
    )


def refuse_single_image(norm: nn.Module, features: Tensor, *, heads: str, instead: str) -> None:
    """Raises InputError when batch normalization of a pooled image is to be trained on one image.

    norm: the layer after the pooling; features: (N, C, h, w), its input. `heads` and `instead` are
    words for the message: what cannot be trained, and what to do.
    """
    # SyncBatchNorm, which is not a subclass, includes the images of other processes.
    if isinstance(norm, nn.BatchNorm2d) and norm.training and len(features) == 1:
        raise InputError(
            f"a batch of 1 image cannot train {heads} (the pooled image has one value per "
            f"channel): {instead}"
        )
