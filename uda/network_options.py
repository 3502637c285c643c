"""Snapshots as the commands open them: which network, and how it looks at images."""

import argparse
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from uda.batch_norm import adapt_batch_norm
from uda.cli import add_device, at_least, positive, share, size_from
from uda.data.described.layouts import described_file, is_described
from uda.data.registry import refuse_unused_root, root_of
from uda.data.training import require_known_classes
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


def open_network(
    arguments: argparse.Namespace, device: torch.device, *, target: bool = False
) -> OpenedNetwork:
    """What the options of `add_network_options` ask for, to be shown images of what scores are made
    on or of the `target` of its run; InputError when it cannot be had."""
    snapshot = load_snapshot(arguments.restore_from, partial=arguments.partial)
    configured_root = getattr(arguments, "data_root", None) or snapshot.data.root
    if hasattr(arguments, "data_root"):  # refuses before any work is done
        snapshot = _on_data(snapshot, arguments, target=target)
    config = _configured(snapshot.evaluation, arguments)
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


def _on_data(snapshot: Snapshot, arguments: argparse.Namespace, *, target: bool) -> Snapshot:
    """The snapshot, as if its run had had the data set that the options name for its target.

    Raises InputError when this is of other classes, or when what the command reads, the `target` or
    what scores are made on, is not there."""
    name: str | None = arguments.dataset
    if name is not None:
        require_known_classes(name, snapshot.label_space)
        experiment = deepcopy(snapshot.experiment)
        experiment["evaluation"]["dataset"] = name
        if experiment["data"]["target"] is not None:
            experiment["data"]["target"] |= {"datasets": (name,), "first": None}
        snapshot = replace(snapshot, experiment=experiment)
    domain = snapshot.data.target if target else None
    read = [snapshot.evaluation.dataset] if domain is None else domain.datasets
    for own in filter(is_described, read):
        require(
            described_file(own).is_file(),
            f"the data set of {arguments.restore_from} is {own}, which is not there: give the "
            "command in the folder that training was started in, set UDA_DATA to it, or say where "
            "the file is now with --dataset FILE",
        )
    refuse_unused_root(arguments.data_root, read)
    root_of(arguments.data_root or snapshot.data.root, read)
    return snapshot


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
