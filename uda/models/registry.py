"""The networks by name: one in each file of this folder."""

from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

import uda.models
from uda.models.config import ModelConfig
from uda.models.decoders.base import DecoderConfig, decoder_configs
from uda.models.hrda import HrdaConfig
from uda.utilities.annotations import options_of
from uda.utilities.config_tree import from_plain
from uda.utilities.discovery import classes_of
from uda.utilities.errors import InputError, shown

T = TypeVar("T")


@cache
def model_configs() -> dict[str, type[ModelConfig]]:
    """The settings of each network by the name of its file, such as "deeplabv3plus"."""
    return classes_of(uda.models, ModelConfig)


def model_from_plain(
    values: Mapping[str, Any],
    *,
    origin: str,
    others: Mapping[str, type[Any]] = MappingProxyType({}),
) -> ModelConfig:
    """The settings that `to_plain` was given as a field annotated `ModelConfig`.

    `others` are classes of networks and decoders beyond those of this library, by the name that
    `to_plain` stored. Raises InputError, naming `origin`, for an unknown class and for fields that
    do not fit it.
    """

    def made(values: Mapping[str, Any], ours: Iterable[type[T]], kind: str, name: object) -> T:
        classes = {cls.__name__: cls for cls in ours} | dict(others)
        if not isinstance(name, str) or name not in classes:
            raise InputError(f"{origin}: unknown {kind} {shown(name)}; known: {', '.join(classes)}")
        return filled(classes[name], {n: v for n, v in values.items() if n != "type"})

    def filled(cls: type[T], values: Mapping[str, Any]) -> T:
        fields = dict(values)
        for field, annotation in get_type_hints(cls).items():
            inner, options = fields.get(field), options_of(annotation)
            if DecoderConfig in options and isinstance(inner, Mapping):
                fields[field] = made(
                    inner, decoder_configs().values(), "decoder", inner.get("type")
                )
            elif HrdaConfig in options and isinstance(inner, Mapping):
                fields[field] = filled(HrdaConfig, inner)
        return from_plain(cls, fields, origin=origin)

    # While no name was stored, there was only one network.
    name = values.get("type", "DeepLabV3PlusConfig")
    return made(values, model_configs().values(), "network", name)
