"""Whether figures are still those of a rung: what of a preset decides them, and what has changed.

What has its default is left out: a new field, whose default is the behavior so far, leaves the
figures valid. Where files lie decides nothing.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from ladder_rungs import Rung, rung_named
from uda.experiment import Experiment, validate
from uda.experiments import load_preset
from uda.experiments.translations import TRANSLATIONS
from uda.translation.config import Translation
from uda.utilities.config_tree import default_of, differences, to_plain, with_defaults
from uda.utilities.user_code import class_name

_RUNS = "snapshots/"  # what the paths of runs begin with
_NOT_OF_A_METHOD = ("data.root", "train.seed")


@cache
def digest_of(rung: Rung) -> str:
    """16 hexadecimal digits of its settings, and of those of all that it starts from."""
    values: dict[str, Any] = {} if rung.mean_of else _settings(_resolved(rung.preset))
    for part in ("starts_from", "labels_of", "network_of"):
        key = getattr(rung, part)
        if key is not None:
            values[part] = digest_of(rung_named(key))
    if rung.labels_of is not None:
        values["labeling"] = rung.labeling
    if rung.translated_by:
        values["translated_by"] = translation_digest(rung)
    if rung.mean_of:
        values["mean_of"] = [digest_of(rung_named(key)) for key in rung.mean_of]
    return _digest(values)


def translation_digest(rung: Rung) -> str:
    """16 hexadecimal digits of how its source images are translated."""
    values: dict[str, Any] = {"translated_by": rung.translated_by}
    if rung.translated_by in TRANSLATIONS:
        values |= _settings(TRANSLATIONS[rung.translated_by]())
    if rung.segmenter_of is not None:
        values["segmenter_of"] = digest_of(rung_named(rung.segmenter_of))
    return _digest(values)


def _digest(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def changes(preset: str, trained: Mapping[str, Any]) -> list[str]:
    """Dotted names of what a run's stored experiment has otherwise than the preset now."""
    now = _resolved(preset)
    then = _without_paths(with_defaults(now, trained))
    found = differences(then, _without_paths(to_plain(now)))
    return [name for name in found if name not in _NOT_OF_A_METHOD]


def steps_of(rung: Rung) -> int:
    """Steps of training; 0 for the mean of others."""
    return 0 if rung.mean_of else _resolved(rung.preset).train.steps


@cache
def _resolved(preset: str) -> Experiment:
    return validate(load_preset(preset)).experiment


def _settings(experiment: Experiment | Translation) -> dict[str, Any]:
    experiment = dataclasses.replace(experiment, data=dataclasses.replace(experiment.data))
    experiment.data.root = ""
    values = _without_paths(_not_default(experiment))
    assert isinstance(values, dict)
    return values


def _not_default(config: object) -> object:
    """A dataclass tree as plain values, without the fields that have their defaults."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        named = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
        plain = {
            name: _not_default(value)
            for name, value in named.items()
            if value != default_of(type(config), name)
        }
        return {"type": class_name(type(config))} | plain
    if isinstance(config, dict):
        return {name: _not_default(member) for name, member in config.items()}
    return config


def _without_paths(plain: object) -> object:
    """Plain values with each path of a run cut to its beginning."""
    if isinstance(plain, Mapping):
        return {name: _without_paths(value) for name, value in plain.items()}
    return _RUNS if isinstance(plain, str) and plain.startswith(_RUNS) else plain
