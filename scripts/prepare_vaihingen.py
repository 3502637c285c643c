"""Cuts the large TIFFs of ISPRS Vaihingen or Potsdam into tiles, split by areas as is official.

python scripts/prepare_vaihingen.py downloads/vaihingen --output data/Vaihingen
python scripts/prepare_vaihingen.py downloads/potsdam --dataset potsdam --output data/Potsdam
python scripts/prepare_vaihingen.py downloads/potsdam --dataset potsdam --output data_rgb/Potsdam \\
    --channels RGB --pixel-cm 5

The first folder holds the unpacked archives. Both data sets come with the channels and the
resolution of Vaihingen, so that one can be adapted to the other; the last command keeps Potsdam as
it was flown. An interrupted command is given again.
"""

import argparse
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from uda.commands.common import at_least, clear_errors, positive
from uda.data.datasets.isprs_areas import AREAS, Channels, IsprsName
from uda.data.preparation.isprs_tiles import TileSettings, write_tiles


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Cuts ISPRS Vaihingen or Potsdam into tiles that the library reads."
    )
    add = parser.add_argument
    add("raw", type=Path, metavar="RAW", help="folder of the unpacked archives")
    add("--dataset", choices=get_args(IsprsName), default="vaihingen", help="default: vaihingen")
    add("--output", type=Path, required=True, metavar="DIR", help="DATA_ROOT/Vaihingen or /Potsdam")
    add("--clip", type=at_least(1), default=512, metavar="N", help="side of a tile (default: 512)")
    add("--stride", type=at_least(1), default=256, metavar="N",
        help="between train tiles (default: 256, so that half of one is in the next)")  # fmt: skip
    add("--val-stride", type=at_least(1), metavar="N",
        help="between val tiles (default: the clip, so that they do not overlap)")  # fmt: skip
    add("--channels", choices=get_args(Channels), default="IRRG",
        help="of Potsdam; Vaihingen has IRRG only (default: IRRG)")  # fmt: skip
    add("--pixel-cm", type=positive, default=9.0, metavar="CM",
        help="resize to pixels of so many cm (default: 9, Vaihingen's; Potsdam has 5)")  # fmt: skip
    add("--color-tolerance", type=at_least(0), default=0, metavar="N",
        help="gray levels by which colors of labels may be off (default: 0)")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    settings = TileSettings(
        dataset=options.dataset,
        clip=options.clip,
        stride=options.stride,
        val_stride=options.val_stride,
        channels=options.channels,
        pixel_cm=options.pixel_cm,
        color_tolerance=options.color_tolerance,
    )
    areas = len(AREAS[settings.dataset].areas)
    with tqdm(total=areas, unit="area", leave=False, delay=1) as bar:  # a refusal stands alone

        def advance(count: int) -> None:
            bar.update(count)

        counts = write_tiles(options.raw, options.output, settings, progress=advance)
    print(
        f"{options.output}: {counts.train} train and {counts.val} val tiles of "
        f"{settings.clip}x{settings.clip}, stride {settings.stride}, {settings.channels}, "
        f"{settings.pixel_cm:g} cm"
    )


if __name__ == "__main__":
    with clear_errors():
        main()
