"""Score a snapshot: %(prog)s --restore-from snapshots/RUN/GTA5_40000.pth"""

import argparse
from collections.abc import Sequence
from functools import partial

from uda.commands.endings import clear_errors, print_facts, publish
from uda.commands.ensembles import add_ensemble_options, networks_from
from uda.commands.options import (
    add_network_options,
    add_score_options,
    check_score_options,
    new_parser,
)
from uda.evaluation.evaluate import protocol_line
from uda.experiments.published import compare
from uda.labels.class_sets import class_set_named
from uda.prediction.export import EXPORTS, export_predictions
from uda.prediction.scoring import score_network
from uda.training.tracking import progress_bar
from uda.utilities.distributed import device_named, process_group
from uda.utilities.errors import require


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add_network_options(parser)
    add_ensemble_options(parser)
    parser.add_argument("--split", help="of the data set (default: the snapshot's, usually val)")
    add_score_options(parser)
    parser.add_argument(
        "--export", choices=EXPORTS, help="write predictions for a test server instead of scores"
    )
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    with clear_errors(), process_group(device_named(arguments.device)) as device:
        check_score_options(arguments)
        require(
            arguments.export is None or not arguments.others,
            "--export writes the predictions of one network: omit --with",
        )
        network = networks_from(arguments, device)
        space, config, snapshot = network.snapshot.label_space, network.config, network.snapshot
        config.split = arguments.split or config.split
        config.measures = tuple(dict.fromkeys((*config.measures, *arguments.measures)))
        if arguments.export is not None:
            written = export_predictions(
                network,
                arguments.export,
                snapshot=arguments.restore_from,
                workers=arguments.workers,
                progress=lambda total: partial(progress_bar, total=total, description="export"),
            )
            print_facts(network.facts | {"protocol": protocol_line(config)} | written)
            return
        sets = [class_set_named(name, label_space=space.name) for name in arguments.sets]
        found = score_network(
            network.network,
            config=config,
            label_space=space,
            root=network.root,
            facts=network.facts,
            sets=sets,
            boundary_ratio=arguments.boundary,
            workers=arguments.workers,
            progress=lambda total: partial(progress_bar, total=total, description="evaluate"),
        )
        if network.ensemble is not None:  # what is published is of single networks
            publish(found.scores, space, found.facts, arguments)
            return
        beside = compare(found.scores, snapshot.preset, snapshot.step, config)
        publish(
            found.scores, space, found.facts, arguments,
            aside=beside.text, aside_facts=beside.facts,
        )  # fmt: skip
