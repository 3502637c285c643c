"""Labels target images: python pseudo_label.py --restore-from FILE --threshold 0.5"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from uda.commands.common import at_least, clear_errors, device_named, print_facts
from uda.commands.network_options import add_network_options, network_from
from uda.prediction.pseudo_labeling import label_images, labeling_report, list_target
from uda.training.tracking import progress_bar
from uda.utilities.distributed import own_share, process_group


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add_network_options(parser)
    parser.add_argument(
        "--threshold", required=True, type=float, metavar="P",
        help="pixels whose softmax probability is below P stay unlabeled (0 labels all)",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", type=Path, help="default: beside the snapshot")
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="default: the snapshot's")
    parser.add_argument("--first", type=at_least(1), metavar="N", help="only the first N images")
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None) -> None:
    arguments = parse_arguments(given)
    with clear_errors(), process_group(device_named(arguments.device)) as device:
        folder = arguments.output or arguments.restore_from.parent / "pseudo_labels"
        network = network_from(arguments, device, target=True)
        samples, why_unscored = list_target(
            network.snapshot,
            network.configured_root,
            splits=arguments.splits,
            first=arguments.first,
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
        print(labeling_report(result, names, why_unscored=why_unscored))
