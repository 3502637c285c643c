"""Scores as text in the formats of other projects, and in those that programs read."""

import csv
import io
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from uda.evaluation.metrics import Scores
from uda.evaluation.reports import (
    absent_line,
    fact_lines,
    iou_lines,
    markdown_rows,
    percent,
    rounded,
    scores_json,
    unscored_fact,
)
from uda.labels.spaces import LabelSpace
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError

Facts = Mapping[str, object]
_Table = Sequence[Sequence[str]]


def format_scores(name: str, scores: Scores, label_space: LabelSpace, facts: Facts) -> str:
    """The scores in the format called `name`, one of FORMATS, without a line break at the end.

    facts: what the scores are published with, plain values and dicts of them (see `fact_lines`).
    The formats in HOLDS_FACTS include them; print `fact_lines` before the others. Raises
    InputError, with the nearest name, when there is no such format.
    """
    if name not in FORMATS:
        raise InputError(f"there is no format of scores {name!r}; {suggest(name, FORMATS)}")
    return FORMATS[name](scores, label_space, facts)


def _log(scores: Scores, label_space: LabelSpace, facts: Facts) -> str:
    """The experiment log's lines, after those on classes that are left out of the mean."""
    lines = fact_lines(unscored_fact(scores, label_space.report_names))
    lines += [absent_line(scores)] if scores.absent else []
    return "\n".join([*lines, iou_lines(scores, label_space.report_names)])


def _segmentron(scores: Scores, label_space: LabelSpace, facts: Facts) -> str:
    """As LikeLy-Journey/SegmenTron logs it, but nan for absent classes, which it counts as 0."""
    rows = [
        (str(train_id), name, f"{iou:g}")
        for train_id, (name, iou) in enumerate(zip(label_space.classes, scores.iou, strict=True))
    ]
    summary = f"pixAcc: {100 * scores.pixel_accuracy:.3f}, mIoU: {100 * scores.miou:.3f}"
    # The space before the grid is SegmenTron's.
    grid = _grid(("class id", "class name", "iou"), rows)
    return f"End validation {summary}\nCategory iou: \n {grid}"


def _mmseg(scores: Scores, label_space: LabelSpace, facts: Facts) -> str:
    """As mmsegmentation's IoUMetric logs it; the table starts on a line of its own."""
    columns = zip(label_space.report_names, scores.iou, scores.accuracy, strict=True)
    rows = [(name, str(rounded(iou)), str(rounded(accuracy))) for name, iou, accuracy in columns]
    summary = "  ".join(
        f"{name}: {rounded(value):.4f}"
        for name, value in (
            ("aAcc", scores.pixel_accuracy),
            ("mIoU", scores.miou),
            ("mAcc", scores.mean_accuracy),
        )
    )
    return f"per class results:\n\n{_box(('Class', 'IoU', 'Acc'), rows)}\n{summary}"


def _markdown(scores: Scores, label_space: LabelSpace, facts: Facts) -> str:
    """A list of the facts, then a table; percent with two decimals, `-` for absent classes."""
    facts = {**facts, "pixel_accuracy": _two_decimals(scores.pixel_accuracy)}
    rows = [
        (name, *map(_two_decimals, values)) for name, *values in _rows_and_mean(scores, label_space)
    ]
    table = markdown_rows([("class", "IoU", "Acc"), ("---", "---:", "---:"), *rows])
    return "\n".join([*(f"- {line}" for line in fact_lines(facts)), "", table])


def _json(scores: Scores, label_space: LabelSpace, facts: Facts) -> str:
    """`scores_json`, with null for NaN."""
    values = scores_json(scores, label_space.report_names, **facts)
    return json.dumps(without_nan(values), indent=2, allow_nan=False)


def _csv(scores: Scores, label_space: LabelSpace, facts: Facts) -> str:
    """The facts as comments, then a row for each class and one for the mean; percent with four
    decimals, nothing for absent classes."""
    facts = {**facts, "pixel_accuracy": percent(scores.pixel_accuracy)}
    text = io.StringIO()
    text.writelines(f"# {line}\n" for line in fact_lines(facts))
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("class", "iou", "accuracy"))
    for name, *values in _rows_and_mean(scores, label_space):
        cells = ("" if math.isnan(value) else f"{100 * value:.4f}" for value in values)
        writer.writerow((name, *cells))
    return text.getvalue().rstrip("\n")


FORMATS: Mapping[str, Callable[[Scores, LabelSpace, Facts], str]] = {
    "log": _log,
    "segmentron": _segmentron,
    "mmseg": _mmseg,
    "markdown": _markdown,
    "json": _json,
    "csv": _csv,
}
HOLDS_FACTS = frozenset({"markdown", "json", "csv"})


def _rows_and_mean(scores: Scores, label_space: LabelSpace) -> list[tuple[str, float, float]]:
    """Name, IoU and accuracy of each class, then of the mean, as fractions."""
    classes = zip(label_space.report_names, scores.iou, scores.accuracy, strict=True)
    return [*classes, ("mean", scores.miou, scores.mean_accuracy)]


def _two_decimals(fraction: float) -> str:
    """Percent, rounded once, as the log's lines are."""
    return "-" if math.isnan(fraction) else f"{rounded(fraction):.2f}"


def _grid(header: Sequence[str], rows: _Table) -> str:
    """The table that tabulate prints with tablefmt="grid" and everything centered."""
    widths = [max(len(h) + 2, *map(len, column)) for h, *column in zip(header, *rows, strict=True)]
    rule = _rule(widths)
    lines = [rule, _line(f"{h:^{w}}" for h, w in zip(header, widths, strict=True))]
    lines.append(rule.replace("-", "="))
    for row in rows:
        lines += [_line(f"{cell:^{w}}" for cell, w in zip(row, widths, strict=True)), rule]
    return "\n".join(lines)


def _box(header: Sequence[str], rows: _Table) -> str:
    """The table that PrettyTable prints. An odd space goes where str.center puts it."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = _rule(widths)
    first, *others = [
        _line(cell.center(w) for cell, w in zip(row, widths, strict=True))
        for row in (header, *rows)
    ]
    return "\n".join([rule, first, rule, *others, rule])


def _rule(widths: Sequence[int]) -> str:
    return f"+{'+'.join('-' * (width + 2) for width in widths)}+"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def without_nan(value: object) -> object:
    """Plain values with None for the numbers that JSON does not have, NaN and infinities."""
    if isinstance(value, Mapping):
        return {name: without_nan(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
