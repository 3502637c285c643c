"""Presets: Python functions that return an `uda.experiment.Experiment`, by their names.

Each module of this folder that has public functions without parameters is a study, and these are
its presets: a new study is one new file.
"""

import inspect
import sys
from collections.abc import Callable
from types import ModuleType

from uda.experiment import Experiment
from uda.experiments.by_path import is_path, preset_from_file, presets_of
from uda.utilities.config_tree import suggest
from uda.utilities.discovery import modules_of
from uda.utilities.errors import InputError, shown

# The studies that `--list` shows first; the others follow by name.
_FIRST = ("gta5_cityscapes", "single", "methods", "logged", "logged_single")


def _studies() -> dict[str, ModuleType]:
    """The modules that have presets, by name, in the order of `--list`."""
    found = {
        module.__name__.rpartition(".")[2]: module for module in modules_of(sys.modules[__name__])
    }
    names = sorted(
        found, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)
    )
    return {name: found[name] for name in names if presets_of(found[name])}


_STUDIES = _studies()
PRESETS: dict[str, Callable[[], Experiment]] = {}
for _study in _STUDIES.values():
    for _name, _preset in presets_of(_study).items():
        assert _name not in PRESETS, f"two presets are called {_name}"
        PRESETS[_name] = _preset


def load_preset(name: str) -> Experiment:
    """A fresh copy of the preset `name`, or what the function of `FILE.py:NAME` returns.

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
    """Every preset with the first line of its description, study by study."""
    width = max(map(len, PRESETS))
    lines = []
    for module in _STUDIES.values():
        lines += ["", _first_line(module)]
        for name, function in presets_of(module).items():
            lines.append(f"  {name:<{width}}  {_first_line(function)}")
    return "\n".join(lines[1:])


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]
