"""Snapshots as the commands open them: which network, and how it looks at images."""

import argparse
from dataclasses import dataclass
from pathlib import Path

import torch

from uda.batch_norm import adapt_batch_norm
from uda.cli import add_device, at_least, positive, share, size_from
from uda.data.registry import root_of
from uda.errors import require
from uda.evaluation import EvaluationConfig
from uda.host_memory import keep_freed_memory
from uda.models.segmenter import Segmenter
from uda.protocols import PROTOCOLS, protocol_name
from uda.snapshots import Snapshot
from uda.snapshots import load as load_snapshot


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


@dataclass(frozen=True, slots=True)
class OpenedNetwork:
    """A snapshot's network, ready to look at images, and what to say of its results."""

    segmenter: Segmenter
    snapshot: Snapshot
    config: EvaluationConfig
    configured_root: str  # of the data sets; may be empty
    facts: dict[str, object]  # what every result is published with

    @property
    def root(self) -> Path:
        """The folder of the data set that is scored; InputError when there is none."""
        return root_of(self.configured_root, [self.config.dataset])


def open_network(arguments: argparse.Namespace, device: torch.device) -> OpenedNetwork:
    """What the options of `add_network_options` ask for; InputError when it cannot be had."""
    snapshot = load_snapshot(arguments.restore_from, partial=arguments.partial)
    config = _configured(snapshot.evaluation, arguments)
    configured_root = getattr(arguments, "data_root", None) or snapshot.data.root
    if hasattr(arguments, "data_root"):
        root_of(configured_root, [config.dataset])  # refuses before any work is done
    if device.type == "cpu":
        keep_freed_memory()
    segmenter = snapshot.build(arguments.weights).to(device)
    require(
        segmenter.has_auxiliary_head or config.heads == "main",
        f"protocol {arguments.protocol or protocol_name(config)} joins two heads, but this "
        "network has one: use --protocol adaptsegnet or native",
    )
    batch_norm = "as trained"
    if arguments.adapt_bn is not None:
        batch_norm = adapt_batch_norm(segmenter, arguments.adapt_bn, config)
    facts: dict[str, object] = {
        "snapshot": str(arguments.restore_from),
        "preset": snapshot.preset,
        "step": snapshot.step,
        "weights": arguments.weights,
        "supervision": snapshot.supervision,
        "initial_weights": snapshot.initial_weights,
        "batch_norm": batch_norm,
    } | snapshot.report
    return OpenedNetwork(segmenter, snapshot, config, configured_root, facts)


def _configured(config: EvaluationConfig, arguments: argparse.Namespace) -> EvaluationConfig:
    """The snapshot's way of evaluation with what the options change."""
    if arguments.protocol is not None:
        config.follow(arguments.protocol)
    for name in ("input_size", "window", "overlap"):
        value = getattr(arguments, name)
        if value is not None:
            setattr(config, name, value)
    if arguments.scales is not None:
        config.scales = tuple(arguments.scales)
    config.flip = config.flip or arguments.flip
    config.check("protocol")
    return config
