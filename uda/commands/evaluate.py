"""Score a snapshot: %(prog)s --restore-from snapshots/RUN/GTA5_40000.pth"""

import argparse
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from uda.commands import choices
from uda.commands.endings import clear_errors, print_facts, publish
from uda.commands.ensembles import add_ensemble_options, networks_from
from uda.commands.options import add_network_options, new_parser
from uda.commands.score_options import add_score_options, check_score_options
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import require

if TYPE_CHECKING:
    from uda.prediction.opened import OpenedNetwork


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add_network_options(parser, several=True)
    add_ensemble_options(parser)
    parser.add_argument(
        "--split", metavar="SPLIT", nargs="+", default=(),
        help="of the data set (default: the snapshot's, usually val); of several data sets, one "
        "for all or one for each",
    )  # fmt: skip
    add_score_options(parser)
    parser.add_argument(
        "--export",
        choices=choices.SERVERS,
        help="write predictions for a test server instead of scores",
    )
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    from uda.evaluation.evaluate import protocol_line
    from uda.experiments.published import compare
    from uda.prediction.export import export_predictions
    from uda.prediction.scoring import score_network
    from uda.training.tracking import progress_bar
    from uda.utilities.distributed import device_named, process_group

    with clear_errors(), process_group(device_named(arguments.device)) as device:
        check_score_options(arguments)
        _check_several(arguments)
        require(
            arguments.export is None or not arguments.others,
            "--export writes the predictions of one network: omit --with",
        )
        network = networks_from(arguments, device)
        space, config, snapshot = network.snapshot.label_space, network.config, network.snapshot
        config.measures = tuple(dict.fromkeys((*config.measures, *arguments.measures)))
        config.sets = tuple(dict.fromkeys((*config.sets, *arguments.sets)))
        config.class_sets(space)  # refuses what there is none of
        if len(arguments.dataset or ()) > 1:
            _publish_each(network, arguments)
            return
        require(len(arguments.split) < 2, "--split: one data set has one split; name one")
        config.split = next(iter(arguments.split), config.split)
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
        found = score_network(
            network.network,
            config=config,
            label_space=space,
            root=network.root,
            facts=network.facts,
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


def _check_several(arguments: argparse.Namespace) -> None:
    """Raises InputError for what cannot be done with several data sets at once."""
    if len(arguments.dataset or ()) < 2:
        return
    require(arguments.export is None, "--export writes one data set: name one with --dataset")
    require(
        arguments.format in choices.CROSS_DOMAIN_FORMATS,
        f"--format {arguments.format} has no place for several data sets; allowed with them: "
        + ", ".join(choices.CROSS_DOMAIN_FORMATS),
    )


def _publish_each(network: "OpenedNetwork", arguments: argparse.Namespace) -> None:
    """Scores the network on each data set, prints all in the format asked for, and writes the JSON
    file."""
    from uda.prediction.cross_domain import FORMATS, score_on_each
    from uda.training.tracking import progress_bar
    from uda.utilities.distributed import is_main

    found = score_on_each(
        network,
        arguments.dataset,
        arguments.split,
        boundary_ratio=arguments.boundary,
        workers=arguments.workers,
        progress=lambda total: partial(progress_bar, total=total, description="evaluate"),
    )
    print(FORMATS[arguments.format](found))
    if arguments.json is not None and is_main():
        write_text_whole(arguments.json, FORMATS["json"](found) + "\n")
