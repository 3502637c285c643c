"""Writes label maps of five groups of clothing: the data set fashion5, from Fashionpedia's
annotations (COCO) or those of the iMaterialist challenges at Kaggle (train.csv).

python scripts/prepare_fashionpedia.py --annotations instances_attributes_train2020.json \\
    instances_attributes_val2020.json --images train test --output $UDA_DATA/Fashion5
python scripts/prepare_fashionpedia.py --annotations train.csv --images train \\
    --output $UDA_DATA/Fashion5

Images become hard links where that is possible. The same command goes on where it was interrupted.
"""

import argparse
from pathlib import Path

from tqdm import tqdm

from uda.commands.common import at_least, clear_errors, print_facts
from uda.data.preparation.fashion_labels import prepare


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    files = "JSON of Fashionpedia, or train.csv of iMaterialist"
    add("--annotations", type=Path, nargs="+", required=True, metavar="FILE", help=files)
    folders = "where the images lie; the first folder that has one counts"
    add("--images", type=Path, nargs="+", required=True, metavar="DIR", help=folders)
    add("--output", type=Path, required=True, metavar="DIR", help="e.g. Fashion5 below UDA_DATA")
    add("--allow-missing", action="store_true", help="leave out images that are not there")
    add("--threads", type=at_least(1), default=4, metavar="N", help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
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


if __name__ == "__main__":
    with clear_errors():
        main()
