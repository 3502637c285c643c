"""A small network of every kind that the library has."""

from copy import deepcopy
from dataclasses import fields, replace
from typing import Any

from tiny_runs import tiny_model
from trials import small_mask2former
from uda.models.config import ModelConfig
from uda.models.decoders.aspp import AsppConfig
from uda.models.decoders.fcn import FcnConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.mask2former import Mask2FormerConfig
from uda.models.smp import SmpConfig

# Where a class has such a field. A new network needs no entry, unless it is slow or its encoders
# have other names.
_SMALL: dict[str, Any] = {
    "backbone": "resnet18",
    "backbone_weights": "none",
    "backbone_width": 8,
    "aspp_rates": (1, 2, 3, 4),
}
_OTHERS: dict[type[ModelConfig], ModelConfig] = {
    DeepLabV3PlusConfig: tiny_model(),
    Mask2FormerConfig: small_mask2former(),
    EncoderDecoderConfig: EncoderDecoderConfig(
        encoder=EncoderConfig(name="resnet18", weights="none", width=8),
        decoder=AsppConfig(norm="batch"),
        auxiliary=FcnConfig(),
    ),
    SmpConfig: SmpConfig(backbone="mobilenet_v2", backbone_weights="none"),
}


def small_network(kind: type[ModelConfig]) -> ModelConfig:
    """Settings of this class for a network that takes milliseconds, from random weights."""
    if kind in _OTHERS:
        return deepcopy(_OTHERS[kind])
    config = kind()
    small = {f.name: _SMALL[f.name] for f in fields(config) if f.name in _SMALL}
    return replace(config, **small)
