"""Write the toy city, a small synthetic data set with a real domain gap: rendered streets in the
folder layouts of GTA5, CycleGTA5 and Cityscapes.

%(prog)s
%(prog)s --size 512x256 --output data/toy_city_large --sheet sheet.png
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from uda.commands.options import new_parser, size_from
from uda.utilities.atomic_files import clear_write_errors, replacing


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add(
        "--output",
        type=Path,
        default=Path("data/toy_city"),
        metavar="DIR",
        help="new folder (default: %(default)s)",
    )
    add("--source", type=int, default=400, metavar="N", help="source images (default: %(default)s)")
    add(
        "--target",
        type=int,
        default=400,
        metavar="N",
        help="target training images (default: %(default)s)",
    )
    add(
        "--validation",
        type=int,
        default=80,
        metavar="N",
        help="target validation images (default: %(default)s)",
    )
    add(
        "--size",
        type=size_from,
        default="256x128",
        metavar="WxH",
        help="in pixels (default: %(default)s)",
    )
    add(
        "--seed",
        type=int,
        default=0,
        help="a different seed gives a different city (default: %(default)s)",
    )
    add(
        "--gap",
        type=float,
        default=0.5,
        help="strength of the domain gap, 0 to 1 (default: %(default)s)",
    )
    add("--sheet", type=Path, metavar="FILE", help="also write an overview picture (PNG)")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    from uda.data.toy_city.city import contact_sheet, write_toy_city

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
        with clear_write_errors(options.sheet):
            options.sheet.parent.mkdir(parents=True, exist_ok=True)
        with replacing(options.sheet) as file:
            sheet.save(file, "PNG")
    print(f"{options.output}: toy city of {scenes} scenes")
