"""Scores as text: the experiment log's lines, a table that compares methods, plain values."""

import math
from collections.abc import Mapping, Sequence

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


def markdown_table(rows: Mapping[str, Scores], names: Sequence[str]) -> str:
    """A table with a column per method of `rows`, and mIoU, then each class, down the side.

    Percent with two decimals; `-` for absent classes.
    """
    methods = list(rows.values())
    values = {"mIoU": [scores.miou for scores in methods]}
    for index, name in enumerate(names):
        values[name] = [scores.iou[index] for scores in methods]
    lines = [["class", *rows], ["---", *("---:" for _ in rows)]]
    lines += [[name, *map(_two_decimals, row)] for name, row in values.items()]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


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


def _two_decimals(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def _plain(fraction: float) -> float | None:
    return None if math.isnan(fraction) else round(100 * fraction, 4)
