"""See and compare runs by what they left in their folders: %(prog)s snapshots/RUN

Scores are those of the last evaluated snapshot, next to the published number where there is one.
Runs with another protocol, data set or classes are set apart: their numbers do not compare. The
same is written as a page: of one run with its curves, warnings and, with --images, what its network
sees; of several with mean and spread over seeds.
"""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uda.commands.options import add_device, add_json, at_least, check_json, new_parser
from uda.commands.tables import Rows, markdown_table, text_table
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import MOST_WORKERS, require
from uda.utilities.terminal import printable

if TYPE_CHECKING:
    from uda.reports.bootstrap import Difference
    from uda.reports.comparison import Group
    from uda.reports.looking import Looked
    from uda.reports.run_files import FoundRun, Run

FORMATS = ("text", "markdown", "latex", "csv")


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
        "--format", choices=FORMATS, default="text",
        help="default: text; latex (booktabs) and csv: methods, with mean and spread over seeds",
    )  # fmt: skip
    add_json(parser)
    page = parser.add_argument_group("page")
    page.add_argument(
        "--output", metavar="FILE.html", type=Path,
        help="default: RUN/report.html; of several runs, comparison.html in the folder that has "
        "them",
    )  # fmt: skip
    page.add_argument(
        "--images", metavar="N", type=at_least(1),
        help="let each run's network see N labeled images of the split that it is scored on: "
        "pictures, confusion matrix, reliability; of several runs, intervals of the differences; "
        "RUN/per_image.npz keeps the counts",
    )  # fmt: skip
    page.add_argument(
        "--against", metavar="FILE", type=Path,
        help="with --images and one run: another snapshot, of this run or another, next to it",
    )  # fmt: skip
    page.add_argument(
        "--data-root", metavar="DIR", help="folder of the data sets (default: the snapshot's)"
    )
    page.add_argument(
        "--code", metavar="FILE.py", type=Path,
        help="your Python file that defines the network; it is run",
    )  # fmt: skip
    page.add_argument(
        "--workers",
        metavar="N",
        type=at_least(0, MOST_WORKERS),
        default=2,
        help="loader processes (default: 2)",
    )
    add_device(page)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    from uda.reports.comparison import grouped
    from uda.reports.comparison_page import comparison_page
    from uda.reports.run_files import find_run

    check_json(options.json)
    given = list(dict.fromkeys(options.runs))
    _check_page(options, len(given))
    found = [find_run(path) for path in given]
    looked = [None if options.images is None else _look(each, options) for each in found]
    groups = grouped(found)
    print(_printed(found, groups, options.format))
    if options.json is not None:
        plain = [asdict(each.run) for each in found]
        write_text_whole(options.json, json.dumps(plain, indent=2) + "\n")
    if len(found) == 1:
        path = _write_page(found[0], given[0], options, looked[0])
    else:
        common = Path(os.path.commonpath([each.folder.absolute().parent for each in found]))
        path = options.output or common / "comparison.html"
        command = shlex.join(["uda", "report", *map(str, given)])
        comparison_page(groups, path, command=command)
    # Not among what a program may read.
    print(f"page: {printable(os.path.relpath(path))}", file=sys.stderr)


def _printed(found: "Sequence[FoundRun]", groups: "Sequence[Group]", how: str) -> str:
    """The tables in the format `how`."""
    from uda.reports.bootstrap import differences
    from uda.reports.comparison import overview
    from uda.reports.table_formats import comma_separated, latex

    if how == "latex":
        return latex(groups)
    if how == "csv":
        return comma_separated(groups)
    table = markdown_table if how == "markdown" else text_table
    text = report([each.run for each in found], table=table)
    if len(found) == 1:
        return text
    blocks = [text, "methods: mean and sample standard deviation over seeds, mIoU in percent"]
    for group in groups:
        if group.reason:
            blocks.append(f"not comparable with the first methods: {group.reason}")
        blocks.append(table(overview(group)))
        blocks += map(_sentence, differences(group))
    return "\n".join(map(printable, "\n\n".join(blocks).split("\n")))


def _sentence(found: "Difference") -> str:
    """Whether one method is better than another, or why that is not known."""
    if found.missing:
        return f"{found.first} minus {found.second}: not known: {found.missing}"
    return (
        f"{found.first} minus {found.second}: {found.difference:+.2f}, 95 % interval "
        f"{found.low:+.2f} to {found.high:+.2f} over {found.images} images: {found.verdict}"
    )


def _check_page(options: argparse.Namespace, count: int) -> None:
    """Raises InputError, before any work, for options that do not fit together."""
    require(
        count == 1 or options.against is None,
        f"--against is for the page of one run, got {count}: name one",
    )
    require(
        options.against is None or options.images is not None,
        "--against compares what two networks see: add --images 20",
    )
    require(
        options.output is None or options.output.parent.is_dir(),
        f"--output {options.output}: give a file in a folder that exists",
    )


def _look(found: "FoundRun", options: argparse.Namespace) -> "Looked":
    """What the run's network sees; its counts are kept beside the run."""
    from uda.prediction.opened import open_network
    from uda.reports.looking import look_at
    from uda.reports.per_image import save_per_image
    from uda.training.tracking import progress_bar
    from uda.utilities.distributed import device_named

    require(
        found.snapshot is not None,
        f"{found.run.name} has no snapshot whose network could see images: omit --images",
    )
    assert found.snapshot is not None
    device = device_named(options.device)
    opened = partial(open_network, device=device, code=options.code, data_root=options.data_root)
    other = None if options.against is None else opened(options.against)
    looked = look_at(
        opened(found.snapshot),
        other,
        count=options.images,
        workers=options.workers,
        progress=lambda total: partial(progress_bar, total=total, description="look"),
    )
    save_per_image(found.folder, looked, found.snapshot.name)
    return looked


def _write_page(
    found: "FoundRun", given: Path, options: argparse.Namespace, looked: "Looked | None"
) -> Path:
    from uda.reports.run_page import run_page

    against = ""
    if options.against is not None:
        against = f"{options.against.parent.name}/{options.against.name}".removeprefix("/")
    return run_page(
        found,
        options.output or found.folder / "report.html",
        looked=looked,
        against=against,
        how_to_look=f"uda report {shlex.quote(str(given))} --images 20",
    )


# --- writing


def report(runs: "Sequence[Run]", *, table: Callable[[Rows], str]) -> str:
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


def _groups(runs: "Sequence[Run]") -> "Iterator[list[Run]]":
    """The runs whose numbers compare, in the order of their first."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        groups.setdefault((run.protocol, *run.per_class), []).append(run)
    yield from groups.values()


def _difference(run: "Run", other: "Run") -> str:
    if run.protocol != other.protocol:
        return f"the protocol there is {other.protocol}"
    return f"{len(run.per_class)} classes here, {len(other.per_class)} there, or other names"


def _facts(runs: "Sequence[Run]") -> Rows:
    names = dict.fromkeys(name for run in runs for name in run.facts)
    return [
        ["", *(run.name for run in runs)],
        *([name, *(run.facts.get(name, "-") for run in runs)] for name in names),
    ]


def _scores(group: "Sequence[Run]") -> Rows:
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


def _notes(group: "Sequence[Run]") -> Iterator[str]:
    """What has to be known of each published number."""
    for run in group:
        if (entry := run.published) is not None:
            step = "an unknown step" if entry.step is None else f"step {entry.step}"
            note = f"; note: {entry.note}" if entry.note else ""
            yield (
                f"published for {run.name}: {entry.preset} at {step} of {entry.document}, "
                f"{entry.images} images, supervision {entry.supervision}{note}"
            )


def _selection_rows(run: "Run") -> Rows:
    rows = [["selection", "step", "mIoU", "criterion", "snapshot"]]
    for way, step, miou, criterion, snapshot in (row.values() for row in run.selections):
        shown_criterion = "-" if criterion is None else f"{criterion:.4f}"
        rows.append([way, str(step), _number(miou), shown_criterion, snapshot or "not kept"])
    return rows


def _number(percent: float | None) -> str:
    return "-" if percent is None else f"{percent:.2f}"
