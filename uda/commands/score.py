"""Score a folder of label maps:

%(prog)s PREDICTIONS gtFine/val
%(prog)s PREDICTIONS --dataset my_data/dataset.toml
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from uda.commands.endings import publish
from uda.commands.options import new_parser
from uda.commands.score_options import add_score_options, check_score_options
from uda.data.prediction_folder import Pair, pair_files, pair_samples
from uda.labels.spaces import CITYSCAPES, LabelSpace
from uda.utilities.errors import require


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder with a PNG for each image")
    add("labels", type=Path, metavar="LABELS", nargs="?",
        help="folder of Cityscapes' labels, e.g. gtFine/val; omit it with --dataset")  # fmt: skip
    add("--dataset", metavar="NAME", help="score on this data set, or a TOML file's, instead")
    add("--split", help="of the data set (default: val)")
    add("--data-root", metavar="DIR", help="of the data set (default: the variable UDA_DATA)")
    add("--ids", choices=("train", "raw"), default="train", help="in PREDICTIONS (default: train)")
    add_score_options(parser)
    return parser.parse_args(arguments)


def paired(options: argparse.Namespace) -> tuple[list[Pair], list[Path], LabelSpace]:
    """Predictions with their labels, those that are left over, and the classes of both."""
    from uda.data.registry import layout_named, refuse_unused_root, root_of
    from uda.data.training import open_labeled_split

    require(
        (options.labels is None) != (options.dataset is None),
        "nothing to score the predictions on: give LABELS or --dataset NAME, one of them",
    )
    if options.dataset is None:
        unused = "split" if options.split else "data-root" if options.data_root else ""
        require(
            not unused, f"--{unused} is an option for data sets: give --dataset NAME, or omit it"
        )
        return *pair_files(options.predictions, options.labels), CITYSCAPES
    refuse_unused_root(options.data_root, [options.dataset])
    root = root_of(options.data_root or "", [options.dataset])
    space = layout_named(options.dataset).label_space
    samples = open_labeled_split(root, options.dataset, options.split or "val", label_space=space)
    return *pair_samples(options.predictions, samples), space


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    from uda.evaluation.folder_scoring import score_pairs, sets_of_maps
    from uda.training.tracking import progress_bar

    check_score_options(options)
    pairs, strays, space = paired(options)
    sets = sets_of_maps(options.sets, space=space)
    if strays:
        print(
            f"warning: {len(strays)} predictions have no label file and are not scored, the first "
            f"is {strays[0]}",
            file=sys.stderr,
        )
    scores, measured = score_pairs(
        pairs,
        ids=options.ids,
        space=space,
        sets=sets,
        boundary_ratio=options.boundary,
        measures=options.measures,
        progress=partial(progress_bar, total=len(pairs), description="score"),
    )
    facts = {
        "predictions": str(options.predictions),
        "labels": str(options.labels or f"{options.dataset} {options.split or 'val'}"),
        "images": len(pairs),
        "ids": options.ids,
        "protocol": "labels at stored resolution",
    }
    publish(scores, space, facts | measured, options)
