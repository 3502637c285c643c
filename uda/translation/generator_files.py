"""Files of generators that `uda train-translation` writes: translation_STEP.pth."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from uda.checkpoints import snapshots
from uda.checkpoints.stored import load_weights
from uda.translation.generators import GeneratorConfig, ResnetGenerator
from uda.utilities.config_tree import from_plain, to_plain
from uda.utilities.errors import InputError, require
from uda.utilities.schema import Plain, fault

_FORMAT = "uda translation"
_FIELDS = {"format", "preset", "translation", "generator", "supervision", "step", "versions",
           "weights"}  # fmt: skip


class _Source(TypedDict):
    size: tuple[int, ...] | list[int]


class _Data(TypedDict):
    source: _Source


class _Translation(TypedDict):
    """What is read of the preset."""

    data: _Data
    method: dict[str, Plain]


class _Content(TypedDict):
    preset: str
    translation: _Translation
    generator: dict[str, Plain]
    supervision: str
    step: int
    versions: dict[str, str]
    weights: dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class GeneratorFile:
    """A generator and where it is from."""

    preset: str
    translation: dict[str, Any]  # the preset, plain values
    generator: GeneratorConfig
    supervision: str  # what its training, or that of its segmenter, saw of the target's labels
    step: int
    versions: dict[str, str]
    weights: Mapping[str, Tensor]

    def build(self) -> ResnetGenerator:
        """The network with its weights, to translate with."""
        network = self.generator.build()
        load_weights(network, self.weights, origin=f"the generator of {self.preset}")
        return network.eval().requires_grad_(False)

    def save(self, path: Path) -> None:
        """Raises WriteError when the disk does not take it."""
        values = {name: getattr(self, name) for name in _FIELDS - {"format", "generator"}}
        snapshots.save(values | {"format": _FORMAT, "generator": to_plain(self.generator)}, path)


def is_generator_file(content: object) -> bool:
    """Whether what was read from a file is of ours."""
    return isinstance(content, dict) and content.get("format") == _FORMAT


def generator_from(content: Mapping[str, Any], path: Path) -> GeneratorFile:
    """What `GeneratorFile.save` wrote to `path`; InputError when some of it is missing."""
    missing = sorted(_FIELDS - content.keys())
    if missing:
        raise InputError(f"{path} is damaged: it has no {', '.join(missing)}; use another copy")
    wrong = fault(content, _Content)
    require(not wrong, f"{path} is damaged: {wrong}; use another copy")
    values = {name: content[name] for name in _FIELDS - {"format", "generator"}}
    width = values["translation"]["data"]["source"]["size"][1:]
    kind = values["translation"]["method"].get("type", "")
    require(
        len(width) == 1 and width[0] > 0 and isinstance(kind, str),
        f"{path} is damaged: its preset has no size of images, or no method; use another copy",
    )
    config = from_plain(GeneratorConfig, content["generator"], origin=str(path))
    config.check(f"{path}: generator")
    with torch.device("meta"):  # a file may ask for a network that no memory holds
        wanted = {name: value.shape for name, value in config.build().state_dict().items()}
    given = {name: value.shape for name, value in values["weights"].items()}
    require(given == wanted, f"{path} is damaged: its weights do not fit its generator")
    return GeneratorFile(generator=config, **values)
