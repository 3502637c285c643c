"""What the commands that score are told to say, and how they say it."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from uda.commands.common import positive, print_facts
from uda.evaluation.boundaries import DEFAULT_RATIO
from uda.evaluation.metrics import Scores
from uda.evaluation.named_measures import MEASURES
from uda.evaluation.report_formats import FORMATS, HOLDS_FACTS, format_scores
from uda.evaluation.reports import unscored_fact
from uda.labels.spaces import LabelSpace
from uda.utilities.distributed import is_main
from uda.utilities.errors import require


def add_score_options(parser: argparse.ArgumentParser) -> None:
    """The options --format, --sets, --boundary, --measures and --json."""
    parser.add_argument(
        "--format", choices=FORMATS, default="log", help="of what is printed (default: log)"
    )
    parser.add_argument(
        "--sets", metavar="NAME", nargs="+", default=(),
        help="also average over these classes: miou16_subset, miou16_restricted, ...",
    )  # fmt: skip
    parser.add_argument(
        "--boundary", metavar="RATIO", nargs="?", type=positive, const=DEFAULT_RATIO,
        help="also boundary IoU; RATIO of the image's diagonal (default: %(const)s)",
    )  # fmt: skip
    parser.add_argument(
        "--measures", choices=MEASURES, nargs="+", default=(),
        help="also these numbers, each with its definition",
    )  # fmt: skip
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the scores here as well")


def check_score_options(options: argparse.Namespace) -> None:
    """Raises InputError, before hours of work, where what is asked for cannot be written."""
    if getattr(options, "export", None) is not None:
        unused = [n for n in ("sets", "boundary", "measures", "json") if getattr(options, n)]
        require(
            not unused and options.format == "log",
            f"--export writes predictions and scores nothing: leave --{(unused or ['format'])[0]}",
        )
    target = options.json
    require(
        target is None or (target.parent.is_dir() and not target.is_dir()),
        f"--json {target}: give a file in a folder that exists",
    )


def publish(
    scores: Scores,
    label_space: LabelSpace,
    facts: Mapping[str, object],
    options: argparse.Namespace,
    *,
    aside: str = "",
    aside_facts: Mapping[str, object] | None = None,
) -> None:
    """Prints the scores with their facts in the format asked for, and writes the JSON file.

    `aside`: whole lines that a reader should see before the scores, in formats made for reading;
    `aside_facts`: the same for those that programs read.
    """
    absent = {"absent": ", ".join(scores.absent)} if scores.absent else {}
    absent |= unscored_fact(scores, label_space.report_names)
    all_facts = {**facts, **absent, **(aside_facts or {})}
    if options.format not in HOLDS_FACTS:
        print_facts(facts if options.format == "log" else {**facts, **absent})  # it says so itself
        print(aside, end="")
    print(format_scores(options.format, scores, label_space, all_facts))
    if options.json is not None and is_main():
        options.json.write_text(format_scores("json", scores, label_space, all_facts) + "\n")
