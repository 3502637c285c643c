"""The options of commands that let several networks predict together."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from uda.commands import choices
from uda.commands.options import foreign_options, network_from
from uda.utilities.errors import require

if TYPE_CHECKING:
    import torch

    from uda.prediction.opened import OpenedNetwork


def add_ensemble_options(parser: argparse.ArgumentParser) -> None:
    """The options --with and --average, beside those of `add_network_options`."""
    ensemble = parser.add_argument_group("ensemble")
    ensemble.add_argument(
        "--with", dest="others", metavar="FILE", nargs="+", type=Path, default=(),
        help="further networks: what counts is the mean prediction of all",
    )  # fmt: skip
    ensemble.add_argument(
        "--average", choices=choices.AVERAGES, help="what the mean is of (default: probabilities)"
    )


def networks_from(
    arguments: argparse.Namespace, device: "torch.device", *, target: bool = False
) -> "OpenedNetwork":
    """What `network_from` opens, with the networks of --with as an ensemble, see `join`."""
    from uda.prediction.ensembles import join

    others, average = arguments.others, arguments.average
    require(
        bool(others) or average is None,
        f"--average {average} is of several networks: name the others with --with FILE, or omit it",
    )
    opened = network_from(arguments, device, target=target)
    if not others:
        return opened
    return join(
        opened,
        arguments.restore_from,
        others,
        average=average or "probabilities",
        device=device,
        weights=arguments.weights,
        foreign=foreign_options(arguments),
        code=arguments.code,
        adapt_bn=arguments.adapt_bn,
    )
