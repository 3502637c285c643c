"""Presets: Python functions that return an `uda.experiment.Experiment`, by their names.

Each module of this folder that has public functions without parameters is a study, and these are
its presets: a new study is one new file.
"""

import inspect
import sys
import textwrap
from collections.abc import Callable
from types import ModuleType

from uda.experiment import Experiment
from uda.experiments.by_path import is_path, preset_from_file, presets_of
from uda.experiments.paper_numbers import paper_of
from uda.utilities.config_tree import suggest
from uda.utilities.discovery import modules_of
from uda.utilities.errors import InputError, shown

# The studies that `--list` shows first; the others follow by name.
# Modules called `papers_*` hold methods as their papers ran them; papers.json knows what these
# report.
_FIRST = ("gta5_cityscapes", "single", "methods", "logged", "logged_single")
_PAPERS = (
    "Methods as their papers ran them, by year. Supervision is what they see of the target's\n"
    'labels; "theirs" is what the authors or their users report.'
)
_WIDTH, _NAME = 100, 26  # columns of a terminal, and of a preset's name


def _studies() -> dict[str, ModuleType]:
    """The modules that have presets, by name, in the order of `--list`."""
    found = {
        module.__name__.rpartition(".")[2]: module for module in modules_of(sys.modules[__name__])
    }
    del found["translations"]  # of another trainer
    names = sorted(
        found, key=lambda name: (_FIRST.index(name) if name in _FIRST else len(_FIRST), name)
    )
    return {name: found[name] for name in names if presets_of(found[name])}


def _is_of_papers(study: str) -> bool:
    return study.startswith("papers_")


_STUDIES = _studies()
PRESETS: dict[str, Callable[[], Experiment]] = {}
for _study in _STUDIES.values():
    for _name, _preset in presets_of(_study).items():
        assert _name not in PRESETS, f"two presets are called {_name}"
        PRESETS[_name] = _preset
_OF_PAPERS = tuple(
    name
    for study, module in _STUDIES.items()
    if _is_of_papers(study)
    for name in presets_of(module)
)


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
    """Every preset with the first line of its description, study by study; those of papers by
    year, with the network, the supervision, and what the paper reports. Papers are shown after the
    log's studies."""
    width = max(len(name) for name in PRESETS if name not in _OF_PAPERS)
    studies = {name: study for name, study in _STUDIES.items() if not _is_of_papers(name)}
    blocks = [
        "\n".join(
            [
                _first_line(module),
                *(f"  {n:<{width}}  {_first_line(f)}" for n, f in presets_of(module).items()),
            ]
        )
        for module in studies.values()
    ]
    log = sum(name in _FIRST for name in studies)
    return "\n\n".join([*blocks[:log], *_list_papers(), *blocks[log:]])


def _list_papers() -> list[str]:
    """The presets of papers, one block, by year; nothing while there are none."""
    years: dict[str, list[str]] = {}
    for name in _OF_PAPERS:
        paper = paper_of(name)
        years.setdefault("year unknown" if paper is None else str(paper.year), []).append(name)
    lines = [_PAPERS] if years else []
    for year in sorted(years):
        lines.append(f"{year}:")
        for name in years[year]:
            lines += _described(name)
    return ["\n".join(lines)] if lines else []


def _described(name: str) -> list[str]:
    """A paper's preset: what it is, what it needs, and what is reported of it."""
    experiment, paper = PRESETS[name](), paper_of(name)
    network, seen = experiment.model.title, f"supervision {_supervision(experiment)}"
    cited = network if paper is None else f"{paper.cited}; {network}"
    theirs = f"{seen}; theirs: {paper.theirs}" if paper is not None and paper.theirs else seen
    inner = " " * (_NAME + 4)
    return [
        *_wrapped(_first_line(PRESETS[name]), first=f"  {name:<{_NAME}}  "),
        *_wrapped(cited, first=inner),
        *_wrapped(theirs, first=inner),
    ]


def _wrapped(text: str, *, first: str) -> list[str]:
    indent = " " * (_NAME + 4)
    return textwrap.wrap(
        text, _WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False
    )


def _supervision(experiment: Experiment) -> str:
    """What labels of the target a preset learns from: none, pseudo, or ground truth."""
    data = experiment.data
    learned = () if data.source is None else data.source.datasets
    targets = {experiment.evaluation.dataset, *(data.target.datasets if data.target else ())}
    if data.target_ground_truth or targets & set(learned):
        return "ground truth"
    return "none" if data.pseudo_labels is None else "pseudo"


def _first_line(documented: object) -> str:
    return (inspect.getdoc(documented) or "").split("\n")[0]
