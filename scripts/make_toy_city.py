"""Writes the toy city: drawn streets in the folder layouts of GTA5, CycleGTA5 and Cityscapes.

python scripts/make_toy_city.py
python scripts/make_toy_city.py --size 512x256 --output data/toy_city_large --sheet sheet.png
"""

import argparse
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from uda.commands.common import clear_errors, size_from
from uda.data.toy_city.city import contact_sheet, write_toy_city


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Writes a small drawn data set with a real domain gap."
    )
    add = parser.add_argument
    add("--output", type=Path, default=Path("data/toy_city"), metavar="DIR", help="new folder")
    add("--source", type=int, default=400, metavar="N", help="number of source images")
    add("--target", type=int, default=400, metavar="N", help="number of target training images")
    add("--validation", type=int, default=80, metavar="N", help="number of target val images")
    add("--size", type=size_from, default="256x128", metavar="WxH", help="in pixels")
    add("--seed", type=int, default=0, help="another seed, another city")
    add("--gap", type=float, default=0.5, help="strength of the target's camera, 0 to 1")
    add("--sheet", type=Path, metavar="FILE", help="also write an overview picture (PNG)")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    scenes = options.source + options.target + options.validation
    with tqdm(total=scenes, unit="scene", leave=False) as bar:

        def advance(count: int) -> None:
            bar.update(count)

        write_toy_city(
            options.output,
            source_images=options.source,
            target_images=options.target,
            validation_images=options.validation,
            size=options.size,
            seed=options.seed,
            gap=options.gap,
            progress=advance,
        )
    if options.sheet is not None:
        sheet = contact_sheet(seed=options.seed, size=options.size, gap=options.gap)
        options.sheet.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(sheet).save(options.sheet)
    print(f"{options.output}: toy city of {scenes} scenes")


if __name__ == "__main__":
    with clear_errors():
        main()
