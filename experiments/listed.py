"""The text of `--list`, made without importing torch.

Network and supervision of the presets of papers take an import to find out: they are stored in
listed.json. What is stored counts
while the text of this folder's files is what it was made from; otherwise the preset is made.
`python -m uda.experiments.listed` writes the file anew.
"""

import json
import textwrap
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from uda.experiments import FIRST, PRESETS, STUDIES, Preset
from uda.experiments.paper_numbers import paper_of

if TYPE_CHECKING:
    from uda.experiment import Experiment

_PAPERS = (
    "Methods as their papers ran them, by year. Supervision is what they see of the target's\n"
    'labels; "theirs" is what the authors or their users report.'
)
_WIDTH, _NAME = 100, 26  # columns of a terminal, and of a preset's name

FILE = Path(__file__).with_name("listed.json")


class Listed(NamedTuple):
    """What has to be known of a paper's preset to choose it."""

    network: str
    supervision: str  # what labels of the target it learns from: none, pseudo, or ground truth


def listed_of(preset: Preset) -> Listed:
    """Of a preset of papers: what is stored or, where the files have changed, what it is."""
    known = stored().get(preset.name)
    return made(preset) if known is None else known


def made(preset: "Callable[[], Experiment]") -> Listed:
    """What the preset says itself."""
    experiment = preset()
    data = experiment.data
    learned = () if data.source is None else data.source.datasets
    targets = {experiment.evaluation.dataset, *(data.target.datasets if data.target else ())}
    supervision = "none" if data.pseudo_labels is None else "pseudo"
    if data.target_ground_truth or targets & set(learned):
        supervision = "ground truth"
    return Listed(experiment.model.title, supervision)


def _digest() -> str:
    """Of the text of all presets."""
    texts = (path.read_bytes() for path in sorted(FILE.parent.glob("*.py")))
    return sha256(b"\0".join(texts)).hexdigest()


@cache
def stored() -> dict[str, Listed]:
    """What listed.json holds, by name; nothing where it was made from other files."""
    content = json.loads(FILE.read_text("utf-8"))
    if content["digest"] != _digest():
        return {}
    return {name: Listed(*row) for name, row in content["presets"].items()}


def _content() -> dict[str, object]:
    """What listed.json has to hold."""
    papers = [p for p in PRESETS.values() if isinstance(p, Preset) and p.study.startswith("papers")]
    return {"digest": _digest(), "presets": {p.name: list(made(p)) for p in papers}}


def _is_of_papers(study: str) -> bool:
    return study.startswith("papers_")


def list_presets() -> str:
    """Every preset with the first line of its description, study by study; those of papers by
    year, with the network, the supervision, and what the paper reports. Papers are shown after the
    log's studies."""
    studies = {name: study for name, study in STUDIES.items() if not _is_of_papers(name)}
    width = max(len(preset.name) for study in studies.values() for preset in study.presets)
    blocks = [
        "\n".join([study.summary, *(f"  {p.name:<{width}}  {p.summary}" for p in study.presets)])
        for study in studies.values()
    ]
    log = sum(name in FIRST for name in studies)
    return "\n\n".join([*blocks[:log], *_list_papers(), *blocks[log:]])


def _list_papers() -> list[str]:
    """The presets of papers, one block, by year; nothing while there are none."""
    years: dict[str, list[Preset]] = {}
    for study, found in STUDIES.items():
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


if __name__ == "__main__":
    FILE.write_text(json.dumps(_content(), indent=1) + "\n", "utf-8")
