"""Write DensePose-COCO's people as label maps of 14 body parts: the data set `noonbody`.

%(prog)s --annotations densepose_train2014.json --images train2014 \\
    --output data/NoonBody
%(prog)s --annotations densepose_minival2014.json --images val2014 \\
    --output data/NoonBody --split val
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from uda.commands.options import new_parser
from uda.data.datasets.body_parts import NOONBODY


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("--annotations", type=Path, required=True, metavar="FILE",
        help="densepose_train2014.json, also called densepose_coco_2014_train.json")  # fmt: skip
    add("--images", type=Path, required=True, metavar="DIR", help="COCO's train2014 or val2014")
    add("--output", type=Path, required=True, metavar="DIR", help="DATA_ROOT/NoonBody")
    add("--split", choices=NOONBODY.splits, default="train", help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    from uda.data.preparation.densepose import prepare

    with tqdm(unit="img", leave=False, delay=1) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        done = prepare(
            options.annotations,
            options.images,
            options.output,
            split=options.split,
            progress=advance,
        )
    print(
        f"{options.output}: {done.written} images of {options.split} with {done.people} people; "
        f"{done.ignored_people} more people in them without annotated parts are ignored (255); "
        f"{done.left_out} images without annotated people were left out"
    )
