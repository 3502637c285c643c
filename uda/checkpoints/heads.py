"""Networks without the heads that only training reads."""

import copy
from dataclasses import replace

import torch

from uda.checkpoints.snapshots import Snapshot
from uda.models.config import ModelConfig
from uda.utilities.config_tree import apply_override, to_plain


def without_auxiliary_head(snapshot: Snapshot) -> Snapshot:
    """The snapshot without its network's auxiliary head; the same where the head belongs to the
    network. Its tensors are dropped; all others stay."""
    model = snapshot.model
    switch, without = model.auxiliary_switch
    if not model.has_auxiliary_head or not switch.isidentifier():
        return snapshot
    bare = copy.deepcopy(model)
    apply_override(bare, f"{switch}={without}")
    dropped = _names(model, snapshot) - _names(bare, snapshot)
    student = {name: t for name, t in snapshot.student.items() if name not in dropped}
    kind = {"type": snapshot.experiment["model"]["type"]}
    experiment = {**snapshot.experiment, "model": kind | to_plain(bare)}
    return replace(snapshot, student=student, teacher=None, experiment=experiment)


def _names(model: ModelConfig, snapshot: Snapshot) -> set[str]:
    with torch.device("meta"):
        network = model.without_weights().build(snapshot.label_space.num_classes)
    return set(network.state_dict())
