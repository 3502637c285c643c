"""Presets: Python functions that return an `uda.experiment.Experiment`, by their names.

Each module of this folder that has public functions without parameters is a study, and these are
its presets: a new study is one new file. What there is, is read from the text of these files, so
that it can be listed without importing torch; a study is imported when one of its presets is made.
"""

import ast
import importlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, shown

if TYPE_CHECKING:
    from uda.experiment import Experiment

# The studies that `--list` shows first; the others follow by name.
# Modules called `papers_*` hold methods as their papers ran them; papers.json knows what these
# report.
FIRST = ("gta5_cityscapes", "single", "methods", "logged", "logged_single")
_OTHERS = ("__init__", "listed", "translations")  # translations: presets of another trainer


@dataclass(frozen=True, slots=True)
class Preset:
    """A preset by name; calling it makes a fresh copy."""

    name: str
    study: str  # its module
    summary: str  # the first line of its description

    def __call__(self) -> "Experiment":
        function: Callable[[], Experiment] = getattr(
            importlib.import_module(f"{__name__}.{self.study}"), self.name
        )
        return function()


class Study(NamedTuple):
    """A module of presets."""

    summary: str
    presets: tuple[Preset, ...]  # in the order they are written


def _studies() -> dict[str, Study]:
    """The modules that have presets, by name, in the order of `--list`."""
    files = {path.stem: path for folder in __path__ for path in Path(folder).glob("*.py")}
    names = sorted(
        files.keys() - set(_OTHERS),
        key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), name),
    )
    found = ((name, ast.parse(files[name].read_bytes())) for name in names)
    studies = {
        name: Study(_first_line(tree), tuple(_presets_in(tree, name))) for name, tree in found
    }
    return {name: study for name, study in studies.items() if study.presets}


def _presets_in(tree: ast.Module, study: str) -> Iterator[Preset]:
    """The public functions without parameters, as `by_path.presets_of` finds in a module."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            given = node.args
            if not (given.posonlyargs or given.args or given.kwonlyargs or given.vararg
                    or given.kwarg):  # fmt: skip
                yield Preset(node.name, study, _first_line(node))


def _first_line(node: ast.Module | ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "").split("\n")[0]


STUDIES = _studies()
PRESETS: dict[str, "Callable[[], Experiment]"] = {}
for _study in STUDIES.values():
    for _preset in _study.presets:
        assert _preset.name not in PRESETS, f"two presets are called {_preset.name}"
        PRESETS[_preset.name] = _preset


def load_preset(name: str) -> "Experiment":
    """A fresh copy of the preset `name`, or what the function of `FILE.py:NAME` returns.

    Raises InputError with the nearest name when there is none, and as `preset_from_file` does.
    """
    from uda.experiments.by_path import is_path, preset_from_file

    if is_path(name):
        return preset_from_file(name)
    if name not in PRESETS:
        raise InputError(
            f"there is no preset {shown(name)}; {suggest(name, PRESETS)} "
            "(python train_uda.py --list shows all)"
        )
    return PRESETS[name]()
