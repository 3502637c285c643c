"""What the papers behind presets report (papers.json): numbers, memory and time, all of it theirs.

How papers.json is kept: a row is called as a preset of a module `papers_*`; a row whose preset does
not exist is not listed. Numbers are of Cityscapes val in 19 classes unless they say otherwise. The
first is the one to compare with; the others are what the released file or users got, with the issue
thread as `Project#number`. `protocol` is a name of uda/evaluation/protocols.py where theirs equals
it, else words, or null where it is not known. Only what a source says is entered.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uda.evaluation.evaluate import EvaluationConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Number:
    """One mIoU that somebody reports."""

    miou: float  # percent
    source: str  # who says it: paper, README, the file that the README links, an issue thread
    protocol: str | None
    selection: str  # which snapshot was scored: last step, best on validation labels, not said
    step: int | None = None
    seeds: int | None = None  # whose mean it is; None where nobody says
    spread: str = ""  # over the seeds, as reported
    note: str = ""
    dataset: str = "cityscapes"
    split: str = "val"
    classes: int = 19  # that are averaged

    def line(self) -> str:
        """The number with all that it depends on."""
        seeds = "seeds not said" if self.seeds is None else f"{self.seeds} seed"
        seeds += "s" if (self.seeds or 1) > 1 else ""
        parts = [
            f"{self.miou:.2f} ({self.source})",
            "protocol not said" if self.protocol is None else f"protocol {self.protocol}",
            f"{seeds}, {self.spread}" if self.spread else seeds,
            self._selected(),
            *([self.note] if self.note else []),
        ]
        return "; ".join(parts)

    def _selected(self) -> str:
        step = "" if self.step is None else f", {self.step} steps"
        words = "selection not said" if self.selection == "not said" else self.selection
        return f"{words}{step}"

    def differences(self, step: int, evaluation: "EvaluationConfig") -> list[str]:
        """What is known to be different in a score of ours after `step` updates."""
        from uda.evaluation.protocols import protocol_name  # a list of presets needs no torch

        found = []
        ours = protocol_name(evaluation)
        if self.protocol != ours:
            theirs = "not said" if self.protocol is None else self.protocol
            found.append(f"protocol {ours}, theirs {theirs}")
        if self.step is not None and self.step != step:
            found.append(f"step {step}, theirs {self.step}")
        if self.seeds != 1:
            found.append("one seed")
        if self.selection.startswith("best"):
            found.append("not selected by validation labels")
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Paper:
    """A method's paper, and what is reported of it."""

    title: str
    year: int
    venue: str
    arxiv: str
    numbers: tuple[Number, ...]
    memory_gb: float | None = None
    hours: float | None = None
    gpu: str | None = None

    @property
    def cited(self) -> str:
        """Where the paper is to be found."""
        return f"{self.venue}, arXiv {self.arxiv}"

    @property
    def theirs(self) -> str:
        """mIoU, memory and hours as they are reported; empty where nothing is."""
        used = [
            *([] if self.memory_gb is None else [f"{self.memory_gb:g} GB"]),
            *([] if self.hours is None else [f"{self.hours:g} h"]),
        ]
        machine = [] if self.gpu is None else [f"{', '.join(used)} on {self.gpu}".strip()]
        return ", ".join([*(f"{n.miou:.1f} mIoU" for n in self.numbers[:1]), *(machine or used)])


def compared(paper: Paper, step: int, evaluation: "EvaluationConfig") -> list[str]:
    """The lines above a table that has our score and the paper's first number side by side."""
    first, *others = paper.numbers
    where = f"{first.dataset} {first.split}, {first.classes} classes"
    lines = [f"published: {paper.title} ({paper.cited}), {where}: {first.line()}"]
    differences = first.differences(step, evaluation)
    if differences:
        lines.append(f"ours differs: {'; '.join(differences)}")
    return [*lines, *(f"also reported: {number.line()}" for number in others)]


@cache
def _papers() -> Mapping[str, Paper]:
    """The papers by the names of their presets, also of those that do not exist."""
    text = resources.files("uda.experiments").joinpath("papers.json").read_text("utf-8")
    return {
        name: Paper(**row | {"numbers": tuple(Number(**number) for number in row["numbers"])})
        for name, row in json.loads(text).items()
    }


def paper_of(preset: str) -> Paper | None:
    """The paper behind a preset; None for presets that are no paper's."""
    return _papers().get(preset)
