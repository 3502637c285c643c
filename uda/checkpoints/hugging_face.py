"""Folders that transformers' `save_pretrained` wrote: config.json, weights, and how images are
normalized. Nothing outside of the folder is read."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uda.checkpoints.foreign import ForeignOptions, read_foreign
from uda.checkpoints.formats.base import NOT_IN_THE_FILE
from uda.checkpoints.formats.transformers_segformer import computes_as_ours
from uda.checkpoints.label_names import label_space_named
from uda.checkpoints.stored import plain_experiment
from uda.data.registry import scored_on
from uda.labels.spaces import LabelSpace
from uda.models.config import ModelConfig
from uda.models.encoders.base import Normalization
from uda.models.from_files.hugging_face import HuggingFaceConfig, kind_of, with_tensors
from uda.utilities.errors import InputError, require, shown, tally
from uda.utilities.tensor_values import not_finite
from uda.utilities.weight_files import identity, read_weights

_SETTINGS, _IMAGES = "config.json", "preprocessor_config.json"
_WHOLE = ("model.safetensors", "pytorch_model.bin")
_INDEX = "model.safetensors.index.json"
_PART = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_MOST_BYTES = 2**24  # of a file of settings
_MOST_CLASSES = 254
_BYTE = 1 / 255
_SMALLEST = 1e-6  # deviation or factor of bytes
_GIVE = "give a folder as save_pretrained wrote it, of the network and of its image processor"


def is_hugging_face(path: Path) -> bool:
    """Whether it is a folder for `read_folder`."""
    return path.is_dir() and (path / _SETTINGS).is_file()


def read_folder(folder: Path) -> dict[str, Any]:
    """The network in a folder of `save_pretrained`, as fields of a Snapshot; nothing is run.

    Raises InputError, naming the folder, when a file is missing or damaged, when it is of another
    network, or leads elsewhere, and when its classes are nearly those of a label space of ours.
    """
    try:
        return _read(folder)
    except InputError as error:
        problems = [p if str(folder) in p else f"{folder}: {p}" for p in error.problems]
        raise type(error)(*problems) from None


def _read(folder: Path) -> dict[str, Any]:
    text = _text(folder / _SETTINGS)
    values = _json(text, folder / _SETTINGS)
    kind_of(values)
    space, said = label_space_named(class_names(values), file=_SETTINGS)
    processor = _json(_text(folder / _IMAGES), folder / _IMAGES)
    mean, std = _normalization(processor)
    bgr = processor.get("do_flip_channel_order") is True
    tensors = _tensors(folder)
    try:
        network = _network(values, tensors, space, Normalization(mean, std, bgr), text, folder)
    except InputError:
        raise
    except Exception as error:  # settings that do not fit each other, or the weights
        line = " ".join(str(error).split())[:200]
        raise InputError(
            f"transformers cannot build the network of {_SETTINGS} with these weights "
            f"({type(error).__name__}: {line}); {_GIVE}"
        ) from None
    quirks = [network.computed, f"mean {_listed(mean)}, deviation {_listed(std)} of RGB"]
    if (size := processor.get("size")) is not None:
        quirks.append(f"its processor resizes images to {shown(size)}, the protocol does not")
    return {
        "preset": network.title,
        "experiment": plain_experiment(network.model, "native", scored_on(space)),
        "label_space": space,
        "supervision": NOT_IN_THE_FILE,
        "initial_weights": identity(folder),
        "student": network.state,
        "report": {
            "tensors": f"{len(tensors)} of {len(tensors)} matched",
            "classes": said,
            "quirks": "; ".join(quirks),
        },
    }


class _Network(NamedTuple):
    model: ModelConfig
    state: dict[str, Tensor]  # of what it builds
    title: str
    computed: str  # by whom, in words


def _network(
    values: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    space: LabelSpace,
    colors: Normalization,
    text: str,
    folder: Path,
) -> _Network:
    if values["model_type"] == "segformer" and computes_as_ours(values):
        project = ForeignOptions(project="transformers")
        found = read_foreign(tensors, origin=str(folder), options=project)
        if found is not None and found.num_classes == space.num_classes and not colors.bgr:
            state = found.state | {
                "mean": torch.tensor(colors.mean).view(1, 3, 1, 1),
                "std": torch.tensor(colors.std).view(1, 3, 1, 1),
            }
            return _Network(found.model, state, found.title, found.quirks)
    config = HuggingFaceConfig(settings=text, mean=colors.mean, std=colors.std, bgr=colors.bgr)
    state = with_tensors(config, tensors, space.num_classes)
    return _Network(config, state, config.title, "computed by transformers")


def class_names(values: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the classes in a config.json, in the order of their ids.

    Raises InputError when there are none, or too many.
    """
    named = values.get("id2label")
    require(
        isinstance(named, dict) and 0 < len(named) <= _MOST_CLASSES,
        f"{_SETTINGS}: id2label names no classes, or more than {_MOST_CLASSES}: {_GIVE}",
    )
    assert isinstance(named, dict)
    names = [named.get(str(number)) for number in range(len(named))]
    require(
        # A terminal would obey control characters.
        all(isinstance(name, str) and name and name.isprintable() for name in names),
        f"{_SETTINGS}: id2label does not name the classes 0 to {len(names) - 1} in letters",
    )
    require(
        not all(re.fullmatch(r"LABEL_\d+", str(name)) for name in names),
        f"{_SETTINGS}: id2label has transformers' placeholders, {names[0]}, ..., not the names of "
        "classes: write them there, in the order of the network's ids",
    )
    return tuple(map(str, names))


_Colors = tuple[float, float, float]


def _normalization(values: Mapping[str, Any]) -> tuple[_Colors, _Colors]:
    """Mean and deviation for RGB in [0, 1], of a processor that scales bytes by a factor."""
    factor = values.get("rescale_factor", _BYTE) if values.get("do_rescale", True) else 1.0
    mean, std = values.get("image_mean"), values.get("image_std")
    if not values.get("do_normalize", mean is not None):
        mean, std = [0.0] * 3, [1.0] * 3
    numbers = [mean, std, [factor] * 3]
    require(
        all(
            isinstance(three, list)
            and len(three) == 3
            and all(isinstance(x, int | float) and abs(x) < 1e6 for x in three)
            for three in numbers
        )
        and factor > _SMALLEST
        and min(std or [0]) > _SMALLEST,
        f"{_IMAGES}: image_mean {shown(mean)}, image_std {shown(std)}, rescale_factor "
        f"{shown(factor)}; needed: three numbers each, and a factor",
    )
    scale = factor / _BYTE  # of images in [0, 1]; 1 where bytes are divided by 255
    scale = 1.0 if abs(scale - 1) < 1e-6 else scale
    assert mean is not None
    assert std is not None
    (m1, m2, m3), (s1, s2, s3) = mean, std
    return (m1 / scale, m2 / scale, m3 / scale), (s1 / scale, s2 / scale, s3 / scale)


def _tensors(folder: Path) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for path in _weight_files(folder):
        content = read_weights(path, expected="weights", instead=f"save it as {_WHOLE[0]}")
        require(
            isinstance(content, Mapping)
            and all(isinstance(n, str) and isinstance(t, Tensor) for n, t in content.items()),
            f"{path} holds more than tensors: {_GIVE}",
        )
        assert isinstance(content, Mapping)
        found |= content
    odd = not_finite(found)
    require(
        not odd,
        f"{tally(odd)} of its tensors hold values that are not finite: use an earlier folder of "
        "that training",
    )
    return found


def _weight_files(folder: Path) -> list[Path]:
    whole = [path for name in _WHOLE if (path := folder / name).is_file()]
    if whole:
        return whole[:1]
    index = folder / _INDEX
    require(index.is_file(), f"there is none of {', '.join(_WHOLE)}, {_INDEX}: {_GIVE}")
    listed = _json(_text(index), index).get("weight_map")
    parts = sorted(set(map(str, listed.values()))) if isinstance(listed, dict) else []
    odd = [name for name in parts if not _PART.fullmatch(name)]
    require(
        bool(parts) and not odd,
        f"{index} names {shown(odd[:1])}; allowed: files model-00001-of-00002.safetensors, ...",
    )
    return [folder / name for name in parts]


def _text(path: Path) -> str:
    require(path.is_file(), f"{path} is missing: {_GIVE}")
    require(path.stat().st_size <= _MOST_BYTES, f"{path} is too large for a file of settings")
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): {_GIVE}") from None


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({str(error)[:100]}): {_GIVE}") from None
    require(isinstance(values, dict), f"{path} holds no settings: {_GIVE}")
    return values


def _listed(numbers: tuple[float, ...]) -> str:
    return " ".join(f"{number:.4g}" for number in numbers)
