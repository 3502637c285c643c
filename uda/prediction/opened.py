"""Snapshots opened to look at images: which network, and by which protocol."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from uda.checkpoints.foreign import ForeignOptions
from uda.checkpoints.snapshots import Snapshot
from uda.checkpoints.snapshots import load as load_snapshot
from uda.data.described.layouts import described_file, is_described
from uda.data.registry import refuse_unused_root, root_of
from uda.data.training import require_known_classes
from uda.evaluation.batch_norm import adapt_batch_norm
from uda.evaluation.ensembles import Ensemble, Network, members_of
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.passes import check_heads
from uda.evaluation.protocols import Precision
from uda.models.segmenter import Segmenter
from uda.utilities.errors import require
from uda.utilities.host_memory import keep_freed_memory


@dataclass(frozen=True, slots=True)
class OpenedNetwork:
    """A snapshot's network, ready to look at images, and what to say of its results."""

    segmenter: Segmenter
    snapshot: Snapshot
    config: EvaluationConfig
    configured_root: str  # of the data sets; may be empty
    facts: dict[str, object]  # what every result is published with
    ensemble: Ensemble | None = None  # of this network and others, see ensembles.py

    @property
    def network(self) -> Network:
        """What predicts: the ensemble, if there is one."""
        return self.segmenter if self.ensemble is None else self.ensemble

    @property
    def root(self) -> Path:
        """The folder of the data set that is scored; InputError when there is none."""
        return root_of(self.configured_root, [self.config.dataset])


def open_network(
    path: Path,
    *,
    device: torch.device,
    weights: Literal["student", "teacher"] = "student",
    foreign: ForeignOptions | None = None,
    code: Path | None = None,
    protocol: str | None = None,
    changes: Mapping[str, Any] | None = None,
    adapt_bn: Path | None = None,
    data: bool = True,
    data_root: str | None = None,
    dataset: str | None = None,
    target: bool = False,
) -> OpenedNetwork:
    """The network in the file `path`, ready to be shown images.

    `foreign`: of a file of another project, what its tensors do not say. `code`: the user's file
    that defines the network, if one does; it is run.
    `protocol`, then `changes` of single fields, replace the snapshot's own protocol. `adapt_bn`:
    first re-estimate batch norm on the images below this folder, or of the training split of a data
    set of this name. With `data`, images come from a
    data set: `dataset` or the snapshot's, below `data_root` or the snapshot's; that of the run's
    `target`, or the one that is scored. Raises InputError when any of it cannot be had.
    """
    snapshot = load_snapshot(path, foreign=foreign, code=code)
    configured_root = data_root or snapshot.data.root
    if data:  # refuses before any work is done
        snapshot = _on_data(snapshot, path, data_root, dataset, target=target)
    config = snapshot.evaluation
    if protocol is not None:
        config.follow(protocol)
    config = replace(config, **(changes or {}))
    config.check("protocol")
    if device.type == "cpu":
        keep_freed_memory()
    segmenter = snapshot.build(weights).to(device)
    check_heads(segmenter, config)
    batch_norm = "as trained"
    if adapt_bn is not None:
        batch_norm = adapt_batch_norm(segmenter, adapt_bn, config, data_root=configured_root)
    facts: dict[str, object] = {
        "snapshot": str(path),
        "preset": snapshot.preset,
        "step": snapshot.step,
        "weights": weights,
        "supervision": snapshot.supervision,
        "initial_weights": snapshot.initial_weights,
        "batch_norm": batch_norm,
    } | snapshot.report
    return OpenedNetwork(segmenter, snapshot, config, configured_root, facts)


def _on_data(
    snapshot: Snapshot, path: Path, data_root: str | None, dataset: str | None, *, target: bool
) -> Snapshot:
    """The snapshot, as if its run had had the data set `dataset` for its target.

    Raises InputError when this is of other classes, or when what is to be read, the `target` or
    what scores are made on, is not there."""
    if dataset is not None:
        require_known_classes(dataset, snapshot.label_space)
        experiment = deepcopy(snapshot.experiment)
        experiment["evaluation"]["dataset"] = dataset
        if experiment["data"]["target"] is not None:
            experiment["data"]["target"] |= {"datasets": (dataset,), "first": None}
        snapshot = replace(snapshot, experiment=experiment)
    domain = snapshot.data.target if target else None
    read = [snapshot.evaluation.dataset] if domain is None else domain.datasets
    for own in filter(is_described, read):
        require(
            described_file(own).exists(),
            f"the data set of {path} is {own}, which is not there: give the "
            "command in the folder that training was started in, set UDA_DATA to it, or say where "
            "the file is now with --dataset FILE",
        )
    refuse_unused_root(data_root, read)
    root_of(data_root or snapshot.data.root, read)
    return snapshot


def network_on(network: Network, device: torch.device | None) -> Network:
    """The network, moved if a device is given; InputError when it is not one of this library."""
    require(
        isinstance(network, Network),
        f"the network is a {type(network).__name__}; allowed: a Segmenter, as uda.load returns "
        "it, an Ensemble of several, or the path of a file",
    )
    return network if device is None else network.to(device)


def title_of(network: Network) -> str:
    """The network's class, or what the ensemble is and the classes of its networks."""
    names = [type(member).__name__ for member in members_of(network)]
    return f"{network}: {', '.join(names)}" if isinstance(network, Ensemble) else names[0]


def config_without_file(
    network: Network,
    dataset: str,
    split: str,
    *,
    protocol: str | None,
    precision: Precision | None,
) -> EvaluationConfig:
    """The protocol for a network that comes without its file."""
    config = EvaluationConfig.following(protocol or "native", dataset=dataset)
    config.split = split
    config.precision = precision or config.precision
    config.check("protocol")
    for segmenter in members_of(network):
        check_heads(segmenter, config)
    return config
