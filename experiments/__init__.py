"""Presets: Python functions that return an `uda.experiment.Experiment`, by their names."""

import inspect

from uda.experiment import Experiment
from uda.experiments import (
    body_parts,
    clothes,
    fashion,
    gta5_cityscapes,
    logged,
    logged_single,
    methods,
    remote_sensing,
    single,
    toy_city,
)
from uda.experiments.by_path import is_path, preset_from_file, presets_of
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, shown

_MODULES = (
    gta5_cityscapes, single, methods, logged, logged_single, clothes, remote_sensing, fashion,
    body_parts, toy_city,
)  # fmt: skip
PRESETS = {name: f for module in _MODULES for name, f in presets_of(module).items()}


def load_preset(name: str) -> Experiment:
    """A fresh copy of the preset `name`, or what the file of `FILE.py:NAME` makes, which is run.

    Raises InputError with the nearest name when there is none, and as `preset_from_file` does.
    """
    if is_path(name):
        return preset_from_file(name)
    if name not in PRESETS:
        raise InputError(
            f"there is no preset {shown(name)}; {suggest(name, PRESETS)} "
            "(python train_uda.py --list shows all)"
        )
    return PRESETS[name]()


def list_presets() -> str:
    """Every preset with the first line of its description, module by module."""
    width = max(map(len, PRESETS))
    lines = []
    for module in _MODULES:
        lines += ["", _first_line(module)]
        for name, function in presets_of(module).items():
            lines.append(f"  {name:<{width}}  {_first_line(function)}")
    return "\n".join(lines[1:])


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]
