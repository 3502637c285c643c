"""The options of commands that print scores."""

import argparse

from uda.commands import choices
from uda.commands.options import add_json, check_json, positive
from uda.utilities.errors import require


def add_score_options(parser: argparse.ArgumentParser) -> None:
    """The options --format, --sets, --boundary, --measures and --json."""
    scores = parser.add_argument_group("scores")
    scores.add_argument(
        "--format",
        choices=choices.SCORE_FORMATS,
        default="log",
        help="of what is printed (default: log)",
    )
    scores.add_argument(
        "--sets", metavar="NAME", nargs="+", default=(),
        help="also average over these classes: miou16_subset, miou16_restricted, ...",
    )  # fmt: skip
    scores.add_argument(
        "--boundary", metavar="RATIO", nargs="?", type=positive, const=choices.BOUNDARY_RATIO,
        help="also boundary IoU; RATIO of the image's diagonal (default: %(const)s)",
    )  # fmt: skip
    scores.add_argument(
        "--measures", choices=choices.MEASURES, nargs="+", default=(),
        help="also these numbers, each with its definition",
    )  # fmt: skip
    add_json(scores)


def check_score_options(options: argparse.Namespace) -> None:
    """Raises InputError, before hours of work, when these options exclude each other or cannot be
    followed."""
    if getattr(options, "export", None) is not None:
        unused = [n for n in ("sets", "boundary", "measures", "json") if getattr(options, n)]
        require(
            not unused and options.format == "log",
            f"--export writes predictions and scores nothing: omit --{(unused or ['format'])[0]}",
        )
    check_json(options.json)
