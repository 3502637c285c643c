"""The ladder's figures between its runs and its files: which are kept, and how they are written."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from operator import itemgetter
from pathlib import Path
from statistics import mean
from typing import Any

from ladder_chart import draw
from ladder_digests import digest_of
from ladder_page import write_page
from ladder_report import report
from ladder_rungs import RUNGS, THRESHOLD, Rung
from uda.utilities.atomic_files import write_text_whole

Figures = dict[str, Any]  # of one method, as in toy_ladder.json

_LISTS = ("miou", "miou_batch_norm_reestimated")  # one number a seed
_MEASURED = ("digest", "steps", "supervision", "seeds", *_LISTS, "minutes", "per_class")


def known_figures(path: Path) -> dict[str, Figures]:
    """What the JSON file of `write_results` has, by the key of the rung; nothing without one."""
    path = path.with_suffix(".json")
    found = json.loads(path.read_text()) if path.exists() else {}
    return {values["rung"]: values for values in found.values()}


def has_figures(known: Mapping[str, Any] | None, rung: Rung, seed: int) -> bool:
    """Whether the figures are of this rung as it is now, and of this seed among others."""
    return known is not None and known["digest"] == digest_of(rung) and seed in known["seeds"]


def joined(old: Figures, new: Figures) -> Figures:
    """`new`, and what `old` has of further seeds."""
    further = [seed for seed in old.get("seeds", ()) if seed not in new["seeds"]]
    seeds = sorted([*further, *new["seeds"]])

    def of_all(find: Callable[[Figures], list[float]]) -> list[float]:
        of = [(old if seed in further else new, seed) for seed in seeds]
        return [find(figures)[figures["seeds"].index(seed)] for figures, seed in of]

    took = old.get("minutes", 0.0) * len(further) + new["minutes"] * len(new["seeds"])
    return (
        new
        | {"seeds": seeds, "minutes": round(took / len(seeds), 2)}
        | {name: of_all(itemgetter(name)) for name in _LISTS}
        | {"per_class": {
            name: of_all(partial(_of_class, name=name)) for name in new["per_class"]
        }}
    )  # fmt: skip


def _of_class(figures: Figures, *, name: str) -> list[float]:
    found: list[float] = figures["per_class"][name]
    return found


def write_results(figures: Mapping[str, Figures], path: Path) -> None:
    """The four files, called `path` before their suffix, the best method last."""
    described = {
        rung.title: {
            "rung": rung.key,
            "preset": rung.preset,
            "mean_of": list(rung.mean_of),
            "translated_by": rung.translated_by,
            "labels": "" if rung.labeling == THRESHOLD else " ".join(rung.labeling),
            "builds_on": rung.builds_on,
            "explanation": rung.explanation,
            "mistake": rung.mistake,
        }
        | {name: figures[rung.key][name] for name in _MEASURED}
        for rung in RUNGS
        if rung.key in figures
    }
    found = dict(sorted(described.items(), key=lambda item: mean(item[1]["miou"])))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_whole(path.with_suffix(".json"), json.dumps(found, indent=1) + "\n")
    write_text_whole(path.with_suffix(".md"), report(found))
    write_page(found, path.with_suffix(".html"))
    draw(found, path.with_suffix(".png"))
    print(f"{path}.json, .md, .png")
