"""Networks, and the settings they are built from."""

from collections.abc import Mapping
from typing import Any

from uda.errors import InputError, shown
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.mask2former import Mask2FormerConfig
from uda.models.segmenter import ModelConfig
from uda.models.segmentron import SegmenTronConfig
from uda.models.smp import SmpConfig
from uda.models.torchvision_deeplabv3 import TorchvisionDeepLabV3Config
from uda.models.vainf import VainFConfig
from uda.plain import from_plain

__all__ = [
    "DeepLabV2Config",
    "DeepLabV3PlusConfig",
    "Mask2FormerConfig",
    "ModelConfig",
    "SegmenTronConfig",
    "SmpConfig",
    "TorchvisionDeepLabV3Config",
    "VainFConfig",
    "model_from_plain",
]

_CONFIGS: tuple[type[ModelConfig], ...] = (
    DeepLabV2Config,
    DeepLabV3PlusConfig,
    Mask2FormerConfig,
    SegmenTronConfig,
    SmpConfig,
    TorchvisionDeepLabV3Config,
    VainFConfig,
)


def model_from_plain(values: Mapping[str, Any], *, origin: str) -> ModelConfig:
    """The settings that `to_plain` was given as a field annotated `ModelConfig`.

    Raises InputError, naming `origin`, for an unknown class and for fields that do not fit it.
    """
    configs = {cls.__name__: cls for cls in _CONFIGS}
    name = values.get("type", "DeepLabV3PlusConfig")  # the only one while none was stored
    if not isinstance(name, str) or name not in configs:
        raise InputError(f"{origin}: unknown network {shown(name)}; known: {', '.join(configs)}")
    fields = {field: value for field, value in values.items() if field != "type"}
    return from_plain(configs[name], fields, origin=origin)
