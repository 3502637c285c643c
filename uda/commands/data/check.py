"""Check data sets file by file: %(prog)s --data-root DIR

Exit status: 0 when nothing is wrong, 1 when there are problems, 2 when nothing could be checked.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uda.commands.options import at_least, check_json, new_parser, own_cores, root_among
from uda.data.doctor.file_facts import FactsCache
from uda.experiments import load_preset
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import MOST_WORKERS, require
from uda.utilities.user_cache import cache_file

if TYPE_CHECKING:
    from uda.data.doctor.plan import Plan


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("--data-root", metavar="DIR", default="", help="default: the variable UDA_DATA")
    add("--preset", metavar="NAME", help="check what this preset reads (default: all there is)")
    add("--dataset", action="append", default=[], metavar="NAME",
        help="check this data set or TOML file; may be repeated")  # fmt: skip
    add("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the preset")
    add("--pseudo-labels", action="append", type=Path, default=[], metavar="DIR",
        help="also check this folder; may be repeated")  # fmt: skip
    add(
        "--fast", action="store_true", help="read only the headers of images; labels are read whole"
    )
    add(
        "--workers",
        type=at_least(1, MOST_WORKERS),
        metavar="N",
        help="processes (default: one for each core)",
    )
    add("--json", type=Path, metavar="FILE", help="write everything found to FILE")
    add("--cache", type=Path, metavar="FILE",
        help="facts about unchanged files (default: in the user's cache folder)")  # fmt: skip
    return parser.parse_args(arguments)


def plan_and_root(options: argparse.Namespace) -> "tuple[Plan, Path]":
    """What is to be checked, and the folder that the data sets are in."""
    from uda.data.doctor.plan import plan_of_datasets, plan_of_preset, plan_of_root
    from uda.data.registry import data_root, datasets_of, refuse_unused_root, root_of
    from uda.experiment import validate
    from uda.experiments.overrides import change

    if options.preset is None:
        require(not options.set, "--set changes a preset: give --preset NAME as well")
        if options.dataset:
            refuse_unused_root(options.data_root, options.dataset)
            root = root_of(options.data_root, options.dataset)
            return plan_of_datasets(options.dataset, options.pseudo_labels, root=root), root
        root = data_root(options.data_root)
        return plan_of_root(root, options.pseudo_labels), root
    experiment = load_preset(options.preset)
    require(
        len(options.pseudo_labels) < 2,
        "--pseudo-labels: a preset reads one folder; give one, or omit --preset",
    )
    require(not options.dataset, "--dataset: a preset names its own; omit --dataset or --preset")
    labels = [f"data.pseudo_labels={folder}" for folder in options.pseudo_labels]
    changed = change(experiment, [*options.set, *labels])
    experiment = validate(experiment, typed=changed.typed).experiment
    data, scored = experiment.data, experiment.evaluation
    used = [scored.dataset, *datasets_of(data)]
    refuse_unused_root(options.data_root or root_among(options.set), used)
    root = root_of(options.data_root or data.root, used)
    plan = plan_of_preset(experiment.data, root, dataset=scored.dataset, split=scored.split)
    return plan, root


def bar(files: Iterator[Any], total: int) -> Iterable[Any]:
    from uda.training.tracking import progress_bar

    return progress_bar(files, total=total, description="check")


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    options = parse_arguments(arguments, prog)
    from uda.data.doctor.check import check_data
    from uda.data.doctor.report_text import format_json, format_report

    plan, root = plan_and_root(options)
    check_json(options.json)
    cache = FactsCache(options.cache or cache_file("check.json"))
    workers = options.workers or own_cores()
    report = check_data(plan, root, cache, workers=workers, header_only=options.fast, progress=bar)
    # A file name may hold bytes that are not text.
    print(format_report(report).encode("utf-8", "backslashreplace").decode())
    if cache.complaint:
        print(
            f"warning: {cache.complaint}: the next check reads all files again; give --cache FILE",
            file=sys.stderr,
        )
    if options.json is not None:
        write_text_whole(options.json, format_json(report) + "\n")
    return 1 if report.problems else 0
