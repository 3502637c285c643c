"""Segment images: %(prog)s --restore-from FILE --images DIR"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uda.commands import choices
from uda.commands.endings import clear_errors, print_facts
from uda.commands.options import add_network_options, network_from, new_parser
from uda.data.deep_images import Range
from uda.prediction.inputs import listed_images
from uda.reports.prediction_page import prediction_page
from uda.utilities.errors import require
from uda.utilities.terminal import printable

if TYPE_CHECKING:
    from uda.prediction.folder import Predicted
    from uda.prediction.opened import OpenedNetwork
    from uda.prediction.test_time import TestTimeAdapter

_SHOWN = 10  # names of images in a note


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(
        __doc__,
        prog=prog,
        epilog="Exit status: 0; 1 when some images could not be read (they are named); 2 when\n"
        "nothing was written.",
    )
    pictures = parser.add_argument_group("pictures")
    pictures.add_argument(
        "--images",
        required=True,
        metavar="PATH",
        type=Path,
        nargs="+",
        help="folders, images (PNG, JPEG, TIFF, BMP, WebP), or lists (.txt) of their paths",
    )
    pictures.add_argument(
        "--output", metavar="DIR", type=Path, help="default: predictions/ next to FILE"
    )
    pictures.add_argument(
        "--kinds",
        choices=choices.PICTURES,
        nargs="+",
        default=choices.PICTURES,
        help="default: all",
    )
    pictures.add_argument(
        "--image-range", nargs=2, type=float, metavar=("LOW", "HIGH"),
        help="of images with more than 8 bits: the values that become black and white, as in "
        "training (default: what the images use)",
    )  # fmt: skip
    pictures.add_argument(
        "--report", action="store_true",
        help="also write DIR.html: every image under its classes, the least sure first",
    )  # fmt: skip
    add_network_options(parser, data_sets=False)
    adapt = parser.add_argument_group("adaptation to the images themselves")
    adapt.add_argument(
        "--adapt", choices=choices.TEST_TIME_METHODS,
        help="batch-norm: with each image's own statistics; tent: and normalization layers learn "
        "from it",
    )  # fmt: skip
    adapt.add_argument(
        "--adapt-mode", choices=choices.TEST_TIME_MODES,
        help="episodic (default): every image meets the trained network; continual: what was "
        "learned stays for the next image of the folder",
    )  # fmt: skip
    adapt.add_argument(
        "--adapt-prior", metavar="N", type=float,
        help="the trained statistics count as so many images (default: 16)",
    )  # fmt: skip
    adapt.add_argument(
        "--adapt-rate",
        metavar="RATE",
        type=float,
        help=f"of --adapt tent (default: {choices.TEST_TIME_RATE:g})",
    )
    return parser.parse_args(arguments)


def _image_range(given: Sequence[float] | None) -> Range | None:
    if given is None:
        return None
    low, high = given
    require(low < high, f"--image-range {low:g} {high:g}: the first has to be lower")
    return low, high


def _adapter(arguments: argparse.Namespace, network: "OpenedNetwork") -> "TestTimeAdapter | None":
    from uda.prediction.test_time import TestTimeAdapter

    options = {name: getattr(arguments, f"adapt_{name}") for name in ("mode", "prior", "rate")}
    given = {name: value for name, value in options.items() if value is not None}
    if arguments.adapt is None:
        for name in given:
            require(False, f"--adapt-{name} is of --adapt: add --adapt batch-norm or --adapt tent")
        return None
    return TestTimeAdapter(network.segmenter, method=arguments.adapt, **given)


def _returns(names: Sequence[str], images: int) -> str:
    from uda.prediction.writer import MANIFEST

    shown, more = names[:_SHOWN], len(names) - _SHOWN
    others = f" and {more} more, which {MANIFEST} lists" if more > 0 else ""
    return (
        f"the network drifted and returned to its start at {len(names)} of {images} images: "
        f"{', '.join(shown)}{others}"
    )


def _page(
    arguments: argparse.Namespace,
    network: "OpenedNetwork",
    output: Path,
    facts: dict[str, object],
    result: "Predicted",
) -> Path:
    """The page of what was predicted."""
    paths = listed_images(arguments.images, output)
    return prediction_page(
        output,
        {name: paths[name] for name in result.images if name in paths},
        space=network.snapshot.label_space,
        facts=network.facts | facts,
        unreadable=result.unreadable,
        image_range=_image_range(arguments.image_range),
    )


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    arguments = parse_arguments(given, prog)
    from uda.prediction.folder import predict_folder
    from uda.training.tracking import progress_bar
    from uda.utilities.distributed import device_named, is_main, process_group

    with clear_errors(), process_group(device_named(arguments.device)) as device:
        output = arguments.output or arguments.restore_from.parent / "predictions"
        require(
            not arguments.report or "ids" in arguments.kinds,
            "--report shows the ids: add ids to --kinds",
        )
        network = network_from(arguments, device)
        adapter = _adapter(arguments, network)
        result = predict_folder(
            network,
            arguments.images,
            output,
            snapshot=arguments.restore_from,
            kinds=tuple(dict.fromkeys(arguments.kinds)),
            image_range=_image_range(arguments.image_range),
            workers=arguments.workers,
            adapter=adapter,
            progress=lambda total: partial(progress_bar, total=total, description="predict"),
        )
        facts: dict[str, object] = {
            "protocol": result.protocol,
            "images": len(result.images),
            "folder": output,
        }
        if adapter is not None:
            facts["test_time"] = adapter.title
        print_facts(network.facts | facts)
        if is_main():
            if arguments.report:
                print_facts({"page": _page(arguments, network, output, facts, result)})
            for remark in result.converted:
                print(f"note: {printable(remark)}")
            if result.returned:
                print(f"note: {printable(_returns(result.returned, len(result.images)))}")
            for reason in result.unreadable.values():
                print(f"not predicted: {printable(reason)}", file=sys.stderr)
    return 1 if result.unreadable else 0
