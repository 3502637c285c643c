"""Cut the large TIFFs of ISPRS Vaihingen or Potsdam into tiles, with the official split.

%(prog)s downloads/vaihingen --output data/Vaihingen
%(prog)s downloads/potsdam --dataset potsdam --output data/Potsdam
%(prog)s downloads/potsdam --dataset potsdam --output data_rgb/Potsdam \\
    --channels RGB --pixel-cm 5

The first folder holds the unpacked archives. By default both data sets get the channels and the
resolution of Vaihingen, so that one can be adapted to the other; the last command keeps Potsdam's
own. Give an interrupted command again to continue.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from tqdm import tqdm

from uda.commands.options import at_least, new_parser, positive
from uda.data.datasets.isprs_areas import AREAS, Channels, IsprsName
from uda.data.preparation.isprs_tiles import TileSettings, write_tiles


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("raw", type=Path, metavar="RAW", help="folder of the unpacked archives")
    add("--dataset", choices=get_args(IsprsName), default="vaihingen", help="default: vaihingen")
    add("--output", type=Path, required=True, metavar="DIR", help="DATA_ROOT/Vaihingen or /Potsdam")
    add("--clip", type=at_least(1), default=512, metavar="N", help="side of a tile (default: 512)")
    add("--stride", type=at_least(1), default=256, metavar="N",
        help="between train tiles (default: 256, half a tile)")  # fmt: skip
    add("--val-stride", type=at_least(1), metavar="N",
        help="between val tiles (default: --clip, no overlap)")  # fmt: skip
    add("--channels", choices=get_args(Channels), default="IRRG",
        help="of Potsdam; Vaihingen has only IRRG (default: IRRG)")  # fmt: skip
    add("--pixel-cm", type=positive, default=9.0, metavar="CM",
        help="size of a pixel after resizing (default: 9, as Vaihingen; Potsdam: 5)")  # fmt: skip
    add("--color-tolerance", type=at_least(0), default=0, metavar="N",
        help="allowed difference of label colors, in gray levels (default: 0)")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
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
