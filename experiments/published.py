"""Published numbers to print next to ours: the experiment log's (published.json), those of the
documents behind the other systems (documents.json), and those of papers (papers.json)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import NamedTuple

from uda.data.registry import layout_named
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.metrics import Scores
from uda.evaluation.reports import comparison_table
from uda.experiments.paper_numbers import compared, paper_of

_LOGGED = "logged_"  # what the names of the presets that repeat the log's runs begin with
# A name of the log, and the one of its runs under that name that it scored.
_SAME_RUN = {
    "aagc_640x360_b2_single_cutmix_student": "aagc_640x360_b2_single_cutmix_student_gt",
}
# Of a paper's number, what is kept with our scores.
_OF_PAPER = ("step", "miou", "protocol", "selection", "seeds", "source")
_NO_RUN = "pseudo_label_eval"  # scores pseudo-labels on training images: nothing compares to it


@dataclass(frozen=True, slots=True)
class Published:
    """One number and what there is to know about it."""

    preset: str  # without `logged_`
    step: int | None  # updates before it was scored; None where the log does not say
    miou: float  # percent
    per_class: Mapping[str, float] | None  # percent, by report name
    supervision: str  # what target labels the log's run had really seen, worded as in snapshots
    note: str  # a reason for care, or empty
    # What it is a number of, and where it stands.
    dataset: str = "cityscapes"
    split: str = "val"
    images: int = 500
    document: str = "the log"


def published(preset: str, step: int | None) -> Published | None:
    """What is published of the run that `preset` is named after, with or without `logged_`.

    The number of exactly this step if there is one, else the last with per-class IoU, else the
    last. None when there is no number: the run is unknown, or its score was not recorded.
    """
    name = preset.removeprefix(_LOGGED)
    entries = _entries().get(_SAME_RUN.get(name, name), ())
    exact = [entry for entry in entries if entry.step == step]
    tables = [entry for entry in entries if entry.per_class is not None]
    for candidates in (exact, tables, entries):
        if candidates:
            return candidates[-1]
    return None


def note_on_name(preset: str) -> str:
    """What to know of a preset whose name the log gave to several runs; empty for the others."""
    name = preset.removeprefix(_LOGGED)
    if name not in _SAME_RUN:
        return ""
    return (
        f"{preset} is {preset.replace(name, _SAME_RUN[name])}: of the runs that the log has under "
        f"{name}, the one that it scored"
    )


class Comparison(NamedTuple):
    """What is published of a run, next to ours; empty where there is no number."""

    text: str = ""  # to be read, whole lines
    facts: Mapping[str, object] = MappingProxyType({})  # the published number, for `scores_json`


def compare(scores: Scores, preset: str, step: int, evaluation: EvaluationConfig) -> Comparison:
    """What is published of `preset` next to our `scores` after `step` updates; empty when there is
    no number, or it is one for another data set or split than `evaluation`.
    """
    scored = (evaluation.dataset, evaluation.split)
    names = layout_named(evaluation.dataset).label_space.report_names
    paper = paper_of(preset)
    if paper is not None and paper.numbers:
        first = paper.numbers[0]
        if scored != (first.dataset, first.split):
            return Comparison()
        table = comparison_table(scores, names, published_miou=first.miou, published_per_class=None)
        lines = compared(paper, step, evaluation)
        number = {name: getattr(first, name) for name in _OF_PAPER}
        return Comparison(
            "\n".join([*lines, table, ""]), {"published": {"preset": preset} | number}
        )
    entry = published(preset, step)
    if entry is None or scored != (entry.dataset, entry.split):
        return Comparison()
    lines = [_caption(entry, preset, step), *([f"note: {entry.note}"] if entry.note else [])]
    table = comparison_table(
        scores,
        names,
        published_miou=entry.miou,
        published_per_class=entry.per_class,
    )
    number = {"preset": entry.preset, "step": entry.step, "miou": entry.miou}
    return Comparison("\n".join([*lines, table, ""]), {"published": number})


def _caption(entry: Published, preset: str, step: int) -> str:
    """Which two numbers stand side by side, and what else differs between them."""
    when = "an unknown step" if entry.step is None else f"step {entry.step}"
    ours = "" if entry.step == step else f" (ours: step {step})"
    caption = (
        f"published: {entry.preset} at {when} of {entry.document}{ours}, {entry.images} images of "
        f"{entry.dataset} {entry.split}, supervision {entry.supervision}"
    )
    if preset.startswith(_LOGGED) or entry.document != "the log":
        return caption
    return (
        f"{caption}; this preset is its counterpart with another network and schedule: "
        f"{_LOGGED}{entry.preset} repeats the log's run"
    )


@cache
def _entries() -> dict[str, tuple[Published, ...]]:
    """The numbers by preset, each preset's in the order of their steps."""
    here = resources.files("uda.experiments")
    found: dict[str, tuple[Published, ...]] = {}
    for file in ("published.json", "documents.json"):
        for name, entries in json.loads(here.joinpath(file).read_text("utf-8")).items():
            found[name] = tuple(
                Published(preset=name, **entry) for entry in entries if entry["miou"] is not None
            )
    del found[_NO_RUN]
    return found
