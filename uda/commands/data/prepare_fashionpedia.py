"""Write label maps of five groups of clothing: the data set fashion5, from Fashionpedia's
annotations (COCO) or those of the iMaterialist challenges at Kaggle (train.csv).

%(prog)s --annotations instances_attributes_train2020.json \\
    instances_attributes_val2020.json --images train test --output $UDA_DATA/Fashion5
%(prog)s --annotations train.csv --images train \\
    --output $UDA_DATA/Fashion5

Images become hard links where that is possible. Give an interrupted
command again to continue.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from uda.commands.endings import print_facts
from uda.commands.options import at_least, new_parser


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    files = "JSON of Fashionpedia, or train.csv of iMaterialist"
    add("--annotations", type=Path, nargs="+", required=True, metavar="FILE", help=files)
    folders = "folders of the images; the first one that has an image is used"
    add("--images", type=Path, nargs="+", required=True, metavar="DIR", help=folders)
    add("--output", type=Path, required=True, metavar="DIR", help="e.g. Fashion5 below UDA_DATA")
    add("--allow-missing", action="store_true", help="skip images that do not exist")
    add("--threads", type=at_least(1), default=4, metavar="N", help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    from uda.data.preparation.fashion_labels import prepare

    with tqdm(unit="image", leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        prepared = prepare(
            options.annotations,
            options.images,
            options.output,
            allow_missing=options.allow_missing,
            threads=options.threads,
            progress=advance,
        )
    print_facts({"written": options.output} | prepared._asdict())
