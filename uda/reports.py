"""Scores as text: the experiment log's lines, tables that compare, plain values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from uda.metrics import Scores


def iou_lines(scores: Scores, names: Sequence[str]) -> str:
    """IoU of each class and mIoU in percent, one line each, byte for byte as the log prints them.

    No padding zeros (`20.5`, `0.0`); absent classes print `nan`.
    """
    lines = [f"===>{name}:\t{_rounded(iou)}" for name, iou in zip(names, scores.iou, strict=True)]
    return "\n".join([*lines, f"===> mIoU: {_rounded(scores.miou)}"])


def absent_line(scores: Scores) -> str:
    """The classes that no score exists for, as a sentence; empty when there is none."""
    if not scores.absent:
        return ""
    return f"absent from labels and predictions, not in the mean: {', '.join(scores.absent)}"


def markdown_table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """A table with a column per result; down the side what each saw of the target's labels, if the
    results say so, then mIoU and each class.

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
    return _markdown(lines)


def comparison_table(
    scores: Scores,
    names: Sequence[str],
    *,
    published_miou: float,
    published_per_class: Mapping[str, float] | None,
) -> str:
    """A table of our scores, published ones, and ours minus theirs: mIoU, then each class.

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
        # Rounded once, like the log's lines: both may stand in one output.
        ours = None if math.isnan(iou) else _rounded(iou)
        cells = (_two_decimals(ours), _two_decimals(theirs), _difference(ours, theirs))
        lines.append([name, *cells])
    return _markdown(lines)


def scores_json(scores: Scores, names: Sequence[str], **facts: object) -> dict[str, object]:
    """The scores as plain values for a JSON file, in percent with four decimals, absent None.

    facts: whatever belongs beside them (run, step, protocol, supervision). Raises TypeError when
    a fact is named like a score.
    """
    per_class = {name: _plain(iou) for name, iou in zip(names, scores.iou, strict=True)}
    return dict(
        **facts,
        miou=_plain(scores.miou),
        pixel_accuracy=_plain(scores.pixel_accuracy),
        per_class=per_class,
    )


def _rounded(fraction: float) -> float:
    return round(100 * fraction, 2)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _difference(ours: float | None, theirs: float | None) -> str:
    """Of the rounded numbers, so that it is the difference of what is printed beside it."""
    if ours is None or theirs is None:
        return "-"
    return f"{round(ours, 2) - round(theirs, 2):+.2f}"


def _two_decimals(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f}"


def _plain(fraction: float) -> float | None:
    return None if math.isnan(fraction) else round(100 * fraction, 4)
