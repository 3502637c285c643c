"""The networks by name: one in each file of this folder."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import uda.models
from uda.models.segmenter import ModelConfig
from uda.utilities.config_tree import from_plain
from uda.utilities.discovery import classes_of
from uda.utilities.errors import InputError, shown


@cache
def model_configs() -> dict[str, type[ModelConfig]]:
    """The settings of each network by the name of its file, such as "deeplabv3plus"."""
    return classes_of(uda.models, ModelConfig)


def model_from_plain(values: Mapping[str, Any], *, origin: str) -> ModelConfig:
    """The settings that `to_plain` was given as a field annotated `ModelConfig`.

    Raises InputError, naming `origin`, for an unknown class and for fields that do not fit it.
    """
    configs = {cls.__name__: cls for cls in model_configs().values()}
    name = values.get("type", "DeepLabV3PlusConfig")  # the only one while none was stored
    if not isinstance(name, str) or name not in configs:
        raise InputError(f"{origin}: unknown network {shown(name)}; known: {', '.join(configs)}")
    fields = {field: value for field, value in values.items() if field != "type"}
    return from_plain(configs[name], fields, origin=origin)
