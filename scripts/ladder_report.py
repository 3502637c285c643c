"""The ladder's tables as Markdown."""

from collections.abc import Iterator, Mapping
from statistics import mean
from typing import Any

from ladder_chart import supervision_of
from ladder_rungs import SOURCE_ONLY

Found = Mapping[str, Mapping[str, Any]]  # method -> its figures, as in toy_ladder.json


def report(found: Found) -> str:
    """All of toy_ladder.md."""
    seeds = sorted({seed for values in found.values() for seed in values["seeds"]})
    titles = {values["rung"]: title for title, values in found.items()}
    lines = [
        "# The toy city's ladder",
        "",
        f"mIoU in percent on the 80 validation images of the target, seeds "
        f"{', '.join(map(str, seeds))}, last step; minutes of training with one thread, "
        "mean.",
        "Written by `make ladder` (scripts/ladder.py). The background of each row:",
        "[docs/what_the_log_taught.md](../docs/what_the_log_taught.md), "
        "[docs/methods.md](../docs/methods.md).",
        "",
        "![mIoU by method](toy_ladder.png)",
        "",
        "| method | preset | builds on | supervision | steps | mIoU | range | "
        "batch norm re-estimated | minutes |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for title, values in found.items():
        miou, adapted = values["miou"], values["miou_batch_norm_reestimated"]
        mark = " (mistake)" if values["mistake"] else ""
        if values["seeds"] != seeds:
            mark += f" (of seeds {', '.join(map(str, values['seeds']))})"
        below = titles.get(values["builds_on"], values["builds_on"] or "")
        lines.append(
            f"| {title}{mark} | {_made_of(values)} | {below} | {values['supervision']} | "
            f"{values['steps']} | {mean(miou):.1f} | {min(miou):.1f} to {max(miou):.1f} | "
            f"{mean(adapted):.1f} | {values['minutes']:.1f} |"
        )
    if SOURCE_ONLY in found:
        lines += ["", below_source_only(found)]
    lines += ["", *_explanations(found, titles)]
    names = list(next(iter(found.values()))["per_class"])
    lines += ["", "Mean IoU of each class:", "", f"| method | {' | '.join(names)} |"]
    lines.append("| --- |" + " ---: |" * len(names))
    for title, values in found.items():
        cells = [f"{mean(values['per_class'][name]):.0f}" for name in names]
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def below_what_they_build_on(found: Found) -> Iterator[tuple[str, float, float]]:
    """Each method whose mean is below that of the one it builds on, and both means, over the seeds
    that both have."""
    by_key = {values["rung"]: values for values in found.values()}
    for title, values in found.items():
        base = by_key.get(values["builds_on"])
        if base is None:
            continue
        both = [seed for seed in values["seeds"] if seed in base["seeds"]]
        if both:
            own, other = (
                mean(v["miou"][v["seeds"].index(seed)] for seed in both) for v in (values, base)
            )
            if own < other:
                yield title, own, other


def _explanations(found: Found, titles: Mapping[str, str]) -> list[str]:
    """A line for each such method."""
    lines = [
        f"- {title} ({own:.2f}) is below {titles[found[title]['builds_on']]} ({other:.2f}): "
        f"{found[title]['explanation'] or 'not explained yet.'}"
        for title, own, other in below_what_they_build_on(found)
    ]
    if not lines:
        return ["No method has a mean below that of the one it builds on."]
    return ["Methods with a mean below that of the one they build on:", "", *lines]


def _made_of(values: Mapping[str, Any]) -> str:
    """The preset of a method, and what is not in it."""
    if values["mean_of"]:
        return "mean of " + ", ".join(f"`{key}`" for key in values["mean_of"])
    labels = f", labels: `{values['labels']}`" if values["labels"] else ""
    by = values.get("translated_by")
    images = f", source translated by `{by}`" if by else ""
    return f"`{values['preset']}`{images}{labels}"


def below_source_only(found: Found) -> str:
    """A sentence on the methods without target labels, mistakes left out, that source only beats
    in the mean."""
    bar = mean(found[SOURCE_ONLY]["miou"])
    below = [
        f"{title} ({mean(values['miou']):.2f})"
        for title, values in found.items()
        if not values["mistake"]
        and supervision_of(values) != "ground truth"
        and mean(values["miou"]) < bar
    ]
    if not below:
        return f"No unsupervised method has a mean below that of {SOURCE_ONLY} ({bar:.2f})."
    return f"Unsupervised methods below {SOURCE_ONLY} ({bar:.2f}) in the mean: {', '.join(below)}."
