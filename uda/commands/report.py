"""Compare runs by what they left in their folders: %(prog)s snapshots/RUN_A snapshots/RUN_B

Scores are those of the last evaluated snapshot, next to the published number where there is one.
Runs with another protocol, data set or classes are set apart: their numbers do not compare.
"""

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from uda.checkpoints import snapshots
from uda.commands.endings import printable
from uda.commands.options import add_json, check_json, new_parser
from uda.evaluation.reports import markdown_rows
from uda.experiments.published import Published, published
from uda.utilities.errors import InputError, require, shown

Rows = list[list[str]]  # of a table, the first one being its head


@dataclass(frozen=True, slots=True)
class Run:
    """What a run says of itself, as plain values."""

    name: str
    facts: dict[str, str]
    protocol: str  # with data set and split
    step: int | None
    miou: float | None  # percent
    per_class: dict[str, float | None]  # percent; None: absent
    published: Published | None
    selections: list[dict[str, Any]] = field(default_factory=list)  # of summary.json


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        type=Path,
        help="a run's folder, or its name",
    )
    parser.add_argument(
        "--format", choices=("text", "markdown"), default="text", help="default: text"
    )
    add_json(parser)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    check_json(options.json)
    runs = [read_run(path) for path in dict.fromkeys(options.runs)]
    print(report(runs, table=_markdown if options.format == "markdown" else _text))
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(run) for run in runs], indent=2) + "\n")


# --- reading


def read_run(given: Path) -> Run:
    """The run in the folder `given`, or in the one of this name below snapshots/.

    Raises InputError when there is none, or none of its snapshots was scored.
    """
    folder = given if given.is_dir() else Path("snapshots") / given
    require(folder.is_dir(), f"{given} is not a folder of a run: give one such as snapshots/RUN")
    scored = folder / "scores.json"  # of a preset of 0 steps
    facts, scores, preset = _of_file(scored) if scored.is_file() else _of_snapshots(folder)
    protocol = str(scores.get("protocol", "unknown"))
    step = int(facts["step"]) if facts["step"].isdigit() else None
    return Run(
        name=str(given).removeprefix("snapshots/"),
        facts=facts,
        protocol=protocol,
        step=step,
        miou=scores["miou"],
        per_class=scores["per_class"],
        published=_published(preset, step, protocol),
        selections=_selections(folder / "summary.json"),
    )


def _of_snapshots(folder: Path) -> tuple[dict[str, str], dict[str, Any], str]:
    """Facts, scores and preset of the last snapshot that was scored."""
    newest_first = sorted(
        (path for path in folder.glob("*_*.pth") if path.stem.rpartition("_")[2].isdigit()),
        key=lambda path: int(path.stem.rpartition("_")[2]),
        reverse=True,
    )
    for path in newest_first:
        found = snapshots.load(path)
        if found.scores is None:
            continue
        train = found.experiment["train"]
        facts = {
            "preset": found.preset,
            "seed": str(train["seed"]),
            "step": str(found.step),
            "of steps": str(train["steps"]),
            "network": found.model.title,
            "initial weights": found.initial_weights,
            "supervision": found.supervision,
            "versions": ", ".join(f"{name} {v}" for name, v in found.versions.items()),
        }
        return facts, found.scores, found.preset
    raise InputError(
        f"{folder} has no scored snapshot among {len(newest_first)}: score one with uda eval "
        "--restore-from FILE, or give another run"
    )


def _of_file(path: Path) -> tuple[dict[str, str], dict[str, Any], str]:
    """The same of a scores.json."""
    try:
        content = json.loads(path.read_text("utf-8"))
        names = {"preset": "preset", "snapshot": "initial weights", "supervision": "supervision"}
        facts = {"step": "0"} | {said: str(content[name]) for name, said in names.items()}
        assert isinstance(content["per_class"], dict)
        return facts, content, str(content["preset"])
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise InputError(f"{path} is damaged ({shown(error)}): train the run again") from None


def _selections(path: Path) -> list[dict[str, Any]]:
    """The rows of summary.json; none where the run did not come to its end."""
    if not path.is_file():
        return []
    try:
        found = json.loads(path.read_text("utf-8"))["selection"]
        return [{name: row[name] for name in _SELECTION} for row in found]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is damaged ({shown(error)}): remove it, the report needs no selections"
        ) from None


_SELECTION = ("way", "step", "miou", "criterion", "snapshot")


def _published(preset: str, step: int | None, protocol: str) -> Published | None:
    """The published number of the preset, if it is one for the data set and split scored here."""
    entry = published(preset, step)
    same = entry is not None and f" on {entry.dataset} {entry.split}:" in protocol
    return entry if same else None


# --- writing


def report(runs: Sequence[Run], *, table: Callable[[Rows], str]) -> str:
    """All tables, those of runs that do not compare under headings that say why.

    What a terminal would obey is escaped: facts come from files.
    """
    blocks = [table(_facts(runs))]
    groups = list(_groups(runs))
    for group in groups:
        head = f"IoU in percent; protocol {group[0].protocol}"
        if group is not groups[0]:
            head = f"{head}\nnot comparable with the first table: {_difference(group[0], runs[0])}"
        blocks += [head, table(_scores(group)), *_notes(group)]
    for run in runs:
        if run.selections:
            blocks += [f"selections of {run.name}", table(_selection_rows(run))]
    lines = "\n\n".join(blocks).split("\n")
    return "\n".join(map(printable, lines))


def _groups(runs: Sequence[Run]) -> Iterator[list[Run]]:
    """The runs whose numbers compare, in the order of their first."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.protocol, *run.per_class), []).append(run)
    yield from groups.values()


def _difference(run: Run, other: Run) -> str:
    if run.protocol != other.protocol:
        return f"the protocol there is {other.protocol}"
    return f"{len(run.per_class)} classes here, {len(other.per_class)} there, or other names"


def _facts(runs: Sequence[Run]) -> Rows:
    names = dict.fromkeys(name for run in runs for name in run.facts)
    return [
        ["", *(run.name for run in runs)],
        *([name, *(run.facts.get(name, "-") for run in runs)] for name in names),
    ]


def _scores(group: Sequence[Run]) -> Rows:
    """mIoU and each class: a column per run, and one for its published number."""
    columns: list[tuple[str, Mapping[str, float | None]]] = []
    for run in group:
        columns.append((run.name, {"mIoU": run.miou} | run.per_class))
        if (entry := run.published) is not None:
            columns.append(("published", {"mIoU": entry.miou} | dict(entry.per_class or {})))
    head = ["class", *(name for name, _ in columns)]
    return [
        head,
        *(
            [name, *(_number(values.get(name)) for _, values in columns)]
            for name in ("mIoU", *group[0].per_class)
        ),
    ]


def _notes(group: Sequence[Run]) -> Iterator[str]:
    """What has to be known of each published number."""
    for run in group:
        if (entry := run.published) is not None:
            step = "an unknown step" if entry.step is None else f"step {entry.step}"
            note = f"; note: {entry.note}" if entry.note else ""
            yield (
                f"published for {run.name}: {entry.preset} at {step} of {entry.document}, "
                f"{entry.images} images, supervision {entry.supervision}{note}"
            )


def _selection_rows(run: Run) -> Rows:
    rows = [["selection", "step", "mIoU", "criterion", "snapshot"]]
    for way, step, miou, criterion, snapshot in (row.values() for row in run.selections):
        shown_criterion = "-" if criterion is None else f"{criterion:.4f}"
        rows.append([way, str(step), _number(miou), shown_criterion, snapshot or "not kept"])
    return rows


def _number(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f}"


def _text(rows: Rows) -> str:
    """Columns as wide as their widest cell, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            f"{cell:>{width}}" if _is_number(cell) else f"{cell:<{width}}"
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).isdigit()


def _markdown(rows: Rows) -> str:
    head, *others = rows
    cells = [head, ["---"] * len(head), *others]
    return markdown_rows([[cell.replace("|", "\\|") for cell in row] for row in cells])
