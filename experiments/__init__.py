"""Presets: Python functions that return an `uda.config.Experiment`, by their names."""

import inspect
from collections.abc import Callable
from types import ModuleType

from experiments import gta5_cityscapes, logged, logged_single, methods, single, toy_city
from uda.config import Experiment
from uda.errors import InputError
from uda.plain import suggest


def _presets_of(module: ModuleType) -> dict[str, Callable[[], Experiment]]:
    """The module's public functions without parameters, in the order they are written."""
    return {
        name: function
        for name, function in vars(module).items()
        if inspect.isfunction(function)
        and function.__module__ == module.__name__
        and not name.startswith("_")
    }


_MODULES = (gta5_cityscapes, single, methods, logged, logged_single, toy_city)
PRESETS = {name: f for module in _MODULES for name, f in _presets_of(module).items()}


def load_preset(name: str) -> Experiment:
    """A fresh copy of the preset `name`; InputError with the nearest name when there is none."""
    if name not in PRESETS:
        raise InputError(
            f"there is no preset {name!r}; {suggest(name, PRESETS)} "
            "(python train_uda.py --list shows all)"
        )
    return PRESETS[name]()


def list_presets() -> str:
    """Every preset with the first line of its description, module by module."""
    width = max(map(len, PRESETS))
    lines = []
    for module in _MODULES:
        lines += ["", _first_line(module)]
        for name, function in _presets_of(module).items():
            lines.append(f"  {name:<{width}}  {_first_line(function)}")
    return "\n".join(lines[1:])


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]
