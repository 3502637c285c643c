"""List the runs below a folder, with state, step, mIoU and supervision: %(prog)s snapshots

The score is that of the last evaluation, whatever its protocol: uda compare says what compares.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from uda.commands.options import check_json, new_parser
from uda.commands.tables import markdown_table, text_table
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import require
from uda.utilities.terminal import printable

if TYPE_CHECKING:
    from uda.reports.run_list import ListedRun


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    parser.add_argument(
        "folder", nargs="?", metavar="FOLDER", type=Path, default=Path("snapshots"),
        help="default: %(default)s",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("text", "markdown"), default="text", help="default: text"
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the list to FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    from uda.reports.run_list import listed_runs

    check_json(options.json)
    require(
        options.folder.is_dir(),
        f"{options.folder} is not a folder: runs are below snapshots/, in the folder that training "
        "was started in; give another one",
    )
    found = list(listed_runs(options.folder))
    table = markdown_table if options.format == "markdown" else text_table
    head = ["run", "state", "step", "of", "mIoU", "supervision", "preset", "seed"]
    text = table([head, *map(_row, found)]) if found else f"there is no run below {options.folder}"
    print("\n".join(map(printable, text.split("\n"))))
    if options.json is not None:
        write_text_whole(options.json, json.dumps([asdict(run) for run in found], indent=2) + "\n")


def _row(run: "ListedRun") -> list[str]:
    miou = None if run.miou is None else f"{run.miou:.2f}"
    cells = (run.step, run.steps, miou, run.supervision, run.preset, run.seed)
    return [run.name, run.state, *("-" if cell is None else str(cell) for cell in cells)]
