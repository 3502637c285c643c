"""Networks without the heads that only training reads."""

import copy

import torch
from torch import Tensor

from uda.checkpoints.snapshots import Snapshot
from uda.models.config import ModelConfig
from uda.models.segmenter import Segmenter
from uda.utilities.config_tree import apply_override
from uda.utilities.user_code import is_user_class


def without_unused_head(snapshot: Snapshot, network: Segmenter) -> dict[str, Tensor]:
    """The student's tensors, without those of an auxiliary head that `network` does not have."""
    state = snapshot.student
    odd = state.keys() - network.state_dict().keys()
    if not odd or is_user_class(snapshot.experiment["model"].get("type")):
        return state
    model = snapshot.model
    switch, without = model.auxiliary_switch
    if not model.has_auxiliary_head or network.has_auxiliary_head or not switch.isidentifier():
        return state
    bare = copy.deepcopy(model)
    apply_override(bare, f"{switch}={without}")
    classes = snapshot.label_space.num_classes
    dropped = _names(model, classes) - _names(bare, classes)
    return {name: value for name, value in state.items() if name not in dropped}


def _names(model: ModelConfig, num_classes: int) -> set[str]:
    with torch.device("meta"):
        return set(model.without_weights().build(num_classes).state_dict())
