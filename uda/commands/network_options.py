"""The options of every command that shows images to a snapshot's network."""

import argparse
from pathlib import Path
from typing import Any

import torch

from uda.commands.common import add_device, at_least, positive, share, size_from
from uda.evaluation.protocols import PROTOCOLS
from uda.prediction.opened import OpenedNetwork, open_network


def add_network_options(parser: argparse.ArgumentParser, *, data_sets: bool = True) -> None:
    """The options of every command that shows images to a snapshot's network, those of
    `data_sets` or others."""
    parser.add_argument(
        "--restore-from", required=True, metavar="FILE", type=Path,
        help="snapshot of train_uda.py, or a file of another project (see README)",
    )  # fmt: skip
    parser.add_argument(
        "--partial", metavar="NAME", nargs="+", default=(),
        help="tensors of another project's network that FILE may lack, or how their names begin",
    )  # fmt: skip
    parser.add_argument(
        "--weights", choices=("student", "teacher"), default="student", help="default: student"
    )
    if data_sets:
        parser.add_argument(
            "--data-root", metavar="DIR", help="folder of the data sets (default: the snapshot's)"
        )
        parser.add_argument(
            "--dataset", metavar="NAME", help="another than the snapshot's; or a TOML file's path"
        )
    _add_protocol(parser)
    parser.add_argument(
        "--adapt-bn", metavar="FOLDER", type=Path,
        help="first re-estimate batch norm on the unlabeled images below FOLDER",
    )  # fmt: skip
    parser.add_argument(
        "--workers", metavar="N", type=at_least(0), default=2, help="loader processes (default: 2)"
    )
    add_device(parser)


def _add_protocol(parser: argparse.ArgumentParser) -> None:
    """The options that say how a network looks at images; the later ones change the first."""
    parser.add_argument(
        "--protocol", choices=PROTOCOLS, help="of evaluation (default: the snapshot's)"
    )
    parser.add_argument(
        "--input-size", metavar="WxH", type=size_from, help="images are resized to this"
    )
    parser.add_argument(
        "--scales", metavar="S", type=positive, nargs="+", help="average over these input scales"
    )
    parser.add_argument("--flip", action="store_true", help="average over mirror images, too")
    parser.add_argument(
        "--window", metavar="WxH", type=size_from, help="slide a window of this size over the image"
    )
    parser.add_argument(
        "--overlap", metavar="SHARE", type=share, help="of a window with the next (default: 0)"
    )


def network_from(
    arguments: argparse.Namespace, device: torch.device, *, target: bool = False
) -> OpenedNetwork:
    """What the options of `add_network_options` ask for, see `open_network`."""
    changes: dict[str, Any] = {
        name: value
        for name in ("input_size", "window", "overlap")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.scales is not None:
        changes["scales"] = tuple(arguments.scales)
    if arguments.flip:
        changes["flip"] = True
    return open_network(
        arguments.restore_from,
        device=device,
        weights=arguments.weights,
        partial=arguments.partial,
        protocol=arguments.protocol,
        changes=changes,
        adapt_bn=arguments.adapt_bn,
        data=hasattr(arguments, "data_root"),
        data_root=getattr(arguments, "data_root", None),
        dataset=getattr(arguments, "dataset", None),
        target=target,
    )
