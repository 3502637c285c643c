"""See data sets in one page: %(prog)s my_data.toml

Images with their labels, class shares, sizes, colors, and what `uda data check` finds. Several data
sets, such as a source and a target, stand side by side. The labels of all that are named are read.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from uda.commands.data.check import bar
from uda.commands.options import at_least, new_parser, own_cores
from uda.data.doctor.file_facts import FactsCache
from uda.utilities.errors import MOST_WORKERS, require
from uda.utilities.terminal import printable
from uda.utilities.user_cache import cache_file


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("datasets", nargs="+", metavar="DATASET", help="a data set's name, or a TOML file's path")
    add("--data-root", metavar="DIR", default="", help="default: the variable UDA_DATA")
    add("--output", metavar="FILE.html", type=Path, help="default: data_DATASET.html")
    add("--images", metavar="N", type=at_least(0), default=24,
        help="pictures of each split, evenly spaced; 0: none (default: %(default)s)")  # fmt: skip
    add("--fast", action="store_true", help="check only the headers of images")
    add(
        "--workers",
        type=at_least(1, MOST_WORKERS),
        metavar="N",
        help="processes (default: one for each core)",
    )
    add("--cache", type=Path, metavar="FILE",
        help="facts about unchanged files (default: in the user's cache folder)")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    options = parse_arguments(arguments, prog)
    from uda.data.doctor.check import check_data
    from uda.data.doctor.plan import plan_of_datasets
    from uda.data.registry import refuse_unused_root, root_of
    from uda.reports.data_page import data_page, default_name
    from uda.training.tracking import progress_bar

    names = list(dict.fromkeys(options.datasets))
    output = options.output or Path(default_name(names))
    require(output.parent.is_dir(), f"--output {output}: give a file in a folder that exists")
    refuse_unused_root(options.data_root, names)
    root = root_of(options.data_root, names)
    report = check_data(
        plan_of_datasets(names, root=root),
        root,
        FactsCache(options.cache or cache_file("check.json")),
        workers=options.workers or own_cores(),
        header_only=options.fast,
        progress=bar,
    )
    given = sys.argv[1:] if arguments is None else list(arguments)
    path = data_page(
        report,
        output,
        images=options.images,
        command=shlex.join([*(prog or "uda data report").split(), *given]),
        progress=lambda samples, total: progress_bar(samples, total=total, description="read"),
    )
    print(f"sets: {len(report.sets)}")
    print(f"problems: {report.problems}")
    print(f"page: {printable(str(path))}")
    return 1 if report.problems else 0
