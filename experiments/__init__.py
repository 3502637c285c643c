"""Presets: Python functions that return an `uda.experiment.Experiment`, by their names.

Each module of this folder that has public functions without parameters is a study, and these are
its presets: a new study is one new file. What there is, is read from the text of these files, so
that it can be listed without importing torch; a study is imported when one of its presets is made.
"""

import ast
import importlib
import textwrap
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
_FIRST = ("gta5_cityscapes", "single", "methods", "logged", "logged_single")
_OTHERS = ("__init__", "listed", "translations")  # translations: presets of another trainer
_PAPERS = (
    "Methods as their papers ran them, by year. Supervision is what they see of the target's\n"
    'labels; "theirs" is what the authors or their users report.'
)
_WIDTH, _NAME = 100, 26  # columns of a terminal, and of a preset's name


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


class _Study(NamedTuple):
    summary: str
    presets: tuple[Preset, ...]  # in the order they are written


def _studies() -> dict[str, _Study]:
    """The modules that have presets, by name, in the order of `--list`."""
    files = {path.stem: path for folder in __path__ for path in Path(folder).glob("*.py")}
    names = sorted(
        files.keys() - set(_OTHERS),
        key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name),
    )
    found = ((name, ast.parse(files[name].read_bytes())) for name in names)
    studies = {
        name: _Study(_first_line(tree), tuple(_presets_in(tree, name))) for name, tree in found
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


def _is_of_papers(study: str) -> bool:
    return study.startswith("papers_")


_STUDIES = _studies()
PRESETS: dict[str, "Callable[[], Experiment]"] = {}
for _study in _STUDIES.values():
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


def list_presets() -> str:
    """Every preset with the first line of its description, study by study; those of papers by
    year, with the network, the supervision, and what the paper reports. Papers are shown after the
    log's studies."""
    studies = {name: study for name, study in _STUDIES.items() if not _is_of_papers(name)}
    width = max(len(preset.name) for study in studies.values() for preset in study.presets)
    blocks = [
        "\n".join([study.summary, *(f"  {p.name:<{width}}  {p.summary}" for p in study.presets)])
        for study in studies.values()
    ]
    log = sum(name in _FIRST for name in studies)
    return "\n\n".join([*blocks[:log], *_list_papers(), *blocks[log:]])


def _list_papers() -> list[str]:
    """The presets of papers, one block, by year; nothing while there are none."""
    from uda.experiments.paper_numbers import paper_of

    years: dict[str, list[Preset]] = {}
    for study, found in _STUDIES.items():
        for preset in found.presets if _is_of_papers(study) else ():
            paper = paper_of(preset.name)
            year = "year unknown" if paper is None else str(paper.year)
            years.setdefault(year, []).append(preset)
    lines = [_PAPERS] if years else []
    for year in sorted(years):
        lines.append(f"{year}:")
        for preset in years[year]:
            lines += _described(preset)
    return ["\n".join(lines)] if lines else []


def _described(preset: Preset) -> list[str]:
    """A paper's preset: what it is, what it needs, and what is reported of it."""
    from uda.experiments.listed import listed_of
    from uda.experiments.paper_numbers import paper_of

    known, paper = listed_of(preset), paper_of(preset.name)
    seen = f"supervision {known.supervision}"
    cited = known.network if paper is None else f"{paper.cited}; {known.network}"
    theirs = f"{seen}; theirs: {paper.theirs}" if paper is not None and paper.theirs else seen
    inner = " " * (_NAME + 4)
    return [
        *_wrapped(preset.summary, first=f"  {preset.name:<{_NAME}}  "),
        *_wrapped(cited, first=inner),
        *_wrapped(theirs, first=inner),
    ]


def _wrapped(text: str, *, first: str) -> list[str]:
    indent = " " * (_NAME + 4)
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )
