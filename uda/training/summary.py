"""The end of a run in one table: its last step, and the steps that other criteria would choose."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from uda.evaluation.label_free import CRITERIA
from uda.evaluation.reports import markdown_rows, percent, rounded
from uda.utilities.atomic_files import replacing
from uda.utilities.sealed_json import sealed

ORACLE = "best by labels (oracle selection)"


class Choice(NamedTuple):
    """The step that one selection criterion chooses among those that were evaluated."""

    way: str
    step: int
    miou: float  # a fraction
    criterion: float | None  # the value of a label-free criterion, if the choice was made by one
    snapshot: str | None  # file of that step; None: it was not kept


class Summary(NamedTuple):
    """The choices among a run's evaluations."""

    steps: tuple[int, ...]  # those that were evaluated
    choices: tuple[Choice, ...]  # none if there is no evaluation


def summarized(log: Sequence[Mapping[str, Any]], snapshot_of: Callable[[int], Path]) -> Summary:
    """The last step, the best by each label-free criterion, the best by labels.

    log: the lines of metrics.jsonl. Among equals the later step is chosen. Evaluations without a
    criterion cannot be the best by it.
    """
    by_step: dict[int, dict[str, Any]] = {}
    for line in log:
        by_step.setdefault(line["step"], {}).update(line)
    evaluated = [line for _, line in sorted(by_step.items()) if "miou" in line]
    if not evaluated:
        return Summary((), ())

    def choice(way: str, line: Mapping[str, Any], criterion: str = "") -> Choice:
        path = snapshot_of(line["step"])
        kept = path.name if path.exists() else None
        return Choice(way, line["step"], line["miou"], line.get(criterion), kept)

    found = [choice("last", evaluated[-1])]
    for name, criterion in CRITERIA.items():
        field = f"label_free/{name}"
        known = [line for line in evaluated if field in line]
        if known:
            best = _best(known, field, highest=criterion.highest)
            found.append(choice(f"best by {criterion.title}", best, field))
    found.append(choice(ORACLE, _best(evaluated, "miou", highest=True)))
    return Summary(tuple(line["step"] for line in evaluated), tuple(found))


def summary_text(summary: Summary) -> str:
    """The choices as a table; one line when there was nothing to choose from."""
    if len(summary.steps) == 1:
        return f"evaluated once, at step {summary.steps[0]}: there was nothing to select"
    rows = [["selection", "step", "mIoU", "criterion", "snapshot"], ["---", *["---:"] * 3, "---"]]
    for choice in summary.choices:
        criterion = "-" if choice.criterion is None else f"{choice.criterion:.4f}"
        row = [choice.way, str(choice.step), f"{rounded(choice.miou):.2f}", criterion]
        rows.append([*row, choice.snapshot or "not kept"])
    return markdown_rows(rows)


def write_summary(path: Path, summary: Summary) -> None:
    """Writes the choices as JSON, mIoU in percent."""
    plain = [choice._asdict() | {"miou": percent(choice.miou)} for choice in summary.choices]
    content = sealed({"evaluated": summary.steps, "selection": plain}, indent=2)
    with replacing(path) as file:
        file.write(content)


def _best(lines: Sequence[Mapping[str, Any]], field: str, *, highest: bool) -> Mapping[str, Any]:
    sign = 1 if highest else -1
    return max(lines, key=lambda line: (sign * line[field], line["step"]))
