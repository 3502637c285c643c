"""Scores a folder of label maps: python scripts/score_folder.py PREDICTIONS gtFine/val"""

import argparse
import sys
from functools import partial
from pathlib import Path

from uda.cli import clear_errors
from uda.data.labels import CITYSCAPES
from uda.data.prediction_folder import pair_files
from uda.folder_scoring import score_pairs, sets_of_maps
from uda.score_options import add_score_options, check_score_options, publish
from uda.tracking import progress_bar


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("predictions", type=Path, metavar="PREDICTIONS", help="folder with a PNG for each image")
    add("labels", type=Path, metavar="LABELS", help="folder of Cityscapes' labels, e.g. gtFine/val")
    add("--ids", choices=("train", "raw"), default="train", help="in PREDICTIONS (default: train)")
    add_score_options(parser)
    return parser.parse_args()


def main() -> None:
    options, space = parse_arguments(), CITYSCAPES
    check_score_options(options)
    sets = sets_of_maps(options.sets, space=space)
    pairs, strays = pair_files(options.predictions, options.labels)
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
        "labels": str(options.labels),
        "images": len(pairs),
        "ids": options.ids,
        "protocol": "labels at stored resolution",
    }
    publish(scores, space, facts | measured, options)


if __name__ == "__main__":
    with clear_errors():
        main()
