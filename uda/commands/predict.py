"""Predicts a folder of images: python predict.py --restore-from FILE --images DIR"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from uda.commands.common import clear_errors, device_named, print_facts, printable
from uda.commands.network_options import add_network_options, network_from
from uda.prediction.folder import predict_folder
from uda.prediction.writer import KINDS
from uda.training.tracking import progress_bar
from uda.utilities.distributed import is_main, process_group


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="Exit status: 0; 1 when images could not be read, which are named; 2 when nothing "
        "was written.",
    )
    add_network_options(parser, data_sets=False)
    parser.add_argument(
        "--images", required=True, metavar="DIR", type=Path, help="folder of PNG and JPEG files"
    )
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: beside the snapshot")
    parser.add_argument(
        "--kinds", choices=KINDS, nargs="+", default=tuple(KINDS), help="default: all"
    )
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> int:
    arguments = parse_arguments(given)
    with clear_errors(), process_group(device_named(arguments.device)) as device:
        output = arguments.output or arguments.restore_from.parent / "predictions"
        network = network_from(arguments, device)
        result = predict_folder(
            network,
            arguments.images,
            output,
            snapshot=arguments.restore_from,
            kinds=tuple(dict.fromkeys(arguments.kinds)),
            workers=arguments.workers,
            progress=lambda total: partial(progress_bar, total=total, description="predict"),
        )
        facts = {"protocol": result.protocol, "images": len(result.images), "folder": output}
        print_facts(network.facts | facts)
        if is_main():
            for reason in result.unreadable.values():
                print(f"not predicted: {printable(reason)}", file=sys.stderr)
    return 1 if result.unreadable else 0
