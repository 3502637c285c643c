"""Write pseudo-labels of target images: %(prog)s --restore-from FILE --threshold 0.5"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from uda.commands.endings import clear_errors, print_facts
from uda.commands.options import add_network_options, at_least, network_from, new_parser
from uda.prediction.pseudo_labeling import label_images, labeling_report, list_target
from uda.training.tracking import progress_bar
from uda.utilities.distributed import device_named, own_share, process_group


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    labels = parser.add_argument_group("pseudo-labels")
    labels.add_argument(
        "--threshold", required=True, type=float, metavar="P",
        help="leave pixels below this softmax probability unlabeled (0 labels all)",
    )  # fmt: skip
    labels.add_argument(
        "--output", metavar="DIR", type=Path, help="default: pseudo_labels/ next to FILE"
    )
    labels.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: the snapshot's")
    labels.add_argument(
        "--score", action="store_true",
        help="also score the labels against the target's ground truth, which is not opened "
        "otherwise; a threshold chosen by these scores is chosen with labels",
    )  # fmt: skip
    labels.add_argument("--first", type=at_least(1), metavar="N", help="only the first N images")
    add_network_options(parser)
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    with clear_errors(), process_group(device_named(arguments.device)) as device:
        folder = arguments.output or arguments.restore_from.parent / "pseudo_labels"
        network = network_from(arguments, device, target=True)
        samples = list_target(
            network.snapshot,
            network.configured_root,
            splits=arguments.splits,
            first=arguments.first,
            labeled=arguments.score,
        )
        result = label_images(
            network.segmenter,
            samples,
            folder,
            threshold=arguments.threshold,
            config=network.config,
            label_space=network.snapshot.label_space,
            snapshot=arguments.restore_from,
            supervision=network.snapshot.supervision,
            workers=arguments.workers,
            progress=partial(progress_bar, total=len(own_share(samples)), description="label"),
        )
        facts = {"protocol": result.manifest.protocol, "images": len(samples), "folder": folder}
        print_facts(network.facts | facts)
        names = network.snapshot.label_space.report_names
        print(labeling_report(result, names))
