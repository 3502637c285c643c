"""Scores as text: the experiment log's lines, tables that compare, plain values."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from uda.evaluation.boundaries import boundary_definition
from uda.evaluation.metrics import Scores, set_miou
from uda.labels.class_sets import ClassSet


def iou_lines(scores: Scores, names: Sequence[str]) -> str:
    """IoU of each class and mIoU in percent, one line each, byte for byte as in the experiment log.

    No padding zeros (`20.5`, `0.0`); absent classes print `nan`.
    """
    lines = [f"===>{name}:\t{rounded(iou)}" for name, iou in zip(names, scores.iou, strict=True)]
    return "\n".join([*lines, f"===> mIoU: {rounded(scores.miou)}"])


def absent_line(scores: Scores) -> str:
    """The classes without a score, as a sentence; "" when there are none."""
    if not scores.absent:
        return ""
    return f"absent from labels and predictions, not in the mean: {', '.join(scores.absent)}"


def unscored_fact(scores: Scores, names: Sequence[str]) -> dict[str, str]:
    """The classes that are left out of the means, as a fact for `scores_json`; {} when there are
    none."""
    unscored = ", ".join(names[train_id] for train_id in scores.unscored)
    return {"not_scored": unscored} if unscored else {}


def markdown_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a column per result and a row for the supervision, if the results name it, for
    mIoU and for each class.

    results: values of `scores_json` by name, or files that hold them. Percent with two decimals;
    `-` for absent classes. Raises ValueError when the results have different classes.
    """
    columns = [{"mIoU": result["miou"]} | result["per_class"] for result in results.values()]
    if any(column.keys() != columns[0].keys() for column in columns):
        raise ValueError("results of different classes do not fit into one table")
    lines = [["class", *results], ["---", *("---:" for _ in results)]]
    if any("supervision" in result for result in results.values()):
        seen = [str(result.get("supervision", "-")) for result in results.values()]
        lines.append(["supervision", *seen])
    for name in columns[0]:
        lines.append([name, *(_two_decimals(column[name]) for column in columns)])
    return markdown_rows(lines)


def comparison_table(
    scores: Scores,
    names: Sequence[str],
    *,
    published_miou: float,
    published_per_class: Mapping[str, float] | None,
) -> str:
    """A table of our scores, published ones, and the difference: mIoU, then each class.

    published_miou, published_per_class: percent, classes by the names in `names`; without classes
    the table is its mIoU row. Percent with two decimals; `-` where a side has no score. Raises
    ValueError when there is not one name for each class.
    """
    per_class = published_per_class or {}
    pairs = [("mIoU", scores.miou, published_miou)] + [
        (name, iou, per_class.get(name)) for name, iou in zip(names, scores.iou, strict=True)
    ]
    lines = [["class", "ours", "published", "difference"], ["---", "---:", "---:", "---:"]]
    for name, iou, theirs in pairs if per_class else pairs[:1]:
        # Rounded once, like the experiment log's lines: both may be printed together.
        ours = None if math.isnan(iou) else rounded(iou)
        cells = (_two_decimals(ours), _two_decimals(theirs), _difference(ours, theirs))
        lines.append([name, *cells])
    return markdown_rows(lines)


def scores_json(scores: Scores, names: Sequence[str], **facts: object) -> dict[str, object]:
    """The scores as plain values for a JSON file, in percent with four decimals, absent None.

    facts: what the scores are published with (run, step, protocol, supervision). Raises TypeError
    when a fact has the name of a score.
    """
    return dict(
        **unscored_fact(scores, names) | facts,
        miou=percent(scores.miou),
        mean_accuracy=percent(scores.mean_accuracy),
        pixel_accuracy=percent(scores.pixel_accuracy),
        per_class=per_class_percent(names, scores.iou),
        per_class_accuracy=per_class_percent(names, scores.accuracy),
    )


def set_fact(scores: Scores, class_set: ClassSet) -> dict[str, object]:
    """The mean over a set of classes (see `set_miou`) as a fact for `scores_json`: its value in
    percent with four decimals, and what it means."""
    return {
        "value": percent(set_miou(scores, class_set)),
        "definition": class_set.definition,
    }


def boundary_fact(scores: Scores, names: Sequence[str], *, ratio: float) -> dict[str, object]:
    """Boundary scores as a fact for `scores_json`: their mean in percent with four decimals, what
    it means, and each class. `ratio`: of the BoundaryMatrix that they come from."""
    return {
        "value": percent(scores.miou),
        "definition": boundary_definition(ratio),
        "per_class": per_class_percent(names, scores.iou),
    }


def fact_lines(facts: Mapping[str, object]) -> list[str]:
    """What a score is published with, as lines `name: value`, with spaces for underscores.

    A dict of plain values is one line, and so is a `value` with its `definition`; nested dicts have
    one line each, which begins with all its keys.
    """
    return [
        line for name, fact in facts.items() for line in _fact_lines(name.replace("_", " "), fact)
    ]


def _fact_lines(name: str, fact: object) -> Iterator[str]:
    if not isinstance(fact, Mapping):
        yield f"{name}: {_spelled(fact)}"
        return
    inner = dict(fact)
    if {"value", "definition"} <= inner.keys():
        yield f"{name}: {_spelled(inner.pop('value'))} ({_spelled(inner.pop('definition'))})"
    plain = {key: part for key, part in inner.items() if not isinstance(part, Mapping)}
    if plain:
        yield f"{name}: {', '.join(f'{key} {_spelled(part)}' for key, part in plain.items())}"
    for key, part in inner.items():
        if isinstance(part, Mapping):
            yield from _fact_lines(f"{name} {key}", part)


def _spelled(value: object) -> str:
    """The value on one line; "-" for None."""
    return "-" if value is None else " ".join(str(value).split())


def rounded(fraction: float) -> float:
    """Percent with at most two decimals."""
    return round(100 * fraction, 2)


def markdown_rows(lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table of these cells."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _difference(ours: float | None, theirs: float | None) -> str:
    """The difference of the rounded numbers, so that it agrees with those printed next to it."""
    if ours is None or theirs is None:
        return "-"
    return f"{round(ours, 2) - round(theirs, 2):+.2f}"


def _two_decimals(value: float | None) -> str:
    """`value`, or "-" where there is none."""
    return "-" if value is None else f"{value:.2f}"


def percent(fraction: float) -> float | None:
    """Percent with four decimals; None of NaN."""
    return None if math.isnan(fraction) else round(100 * fraction, 4)


def per_class_percent(names: Sequence[str], fractions: Sequence[float]) -> dict[str, float | None]:
    """Each class's fraction in percent with four decimals; None of NaN."""
    return {name: percent(value) for name, value in zip(names, fractions, strict=True)}
