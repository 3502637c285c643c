"""The student's parameters in groups: how fast each is learned, and whether it decays."""

from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from uda.models.classifier import classifier_parameters
from uda.models.encoders.base import Encoder
from uda.models.segmenter import Segmenter
from uda.optim.optimizers import ParameterGroup
from uda.optim.settings import Learned, TrainConfig, Undecayed
from uda.utilities.errors import InputError, require

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
_EMBEDDINGS = ("embed", "token", "tokens")  # how the names of plain parameters end


def freeze_unlearned(student: Segmenter, learned: Learned) -> None:
    """Takes the gradient from the parameters of the student that do not learn (see TrainConfig).

    What the network itself keeps fixed, such as batch norm with model.batch_norm=frozen_affine,
    stays fixed. Raises InputError when nothing would learn, or the classifier is not found.
    """
    if learned == "all":
        return
    if learned == "norms":
        kept = {id(p) for p in norm_parameters(student)}
        lacks = "it has no normalization layer with a weight or bias that learns"
        advice = "--set model.batch_norm=train if its batch normalization is frozen, or "
    else:
        classifier = {id(p) for p in classifier_parameters(student)}
        kept = {id(p) for p in student.parameters() if p.requires_grad} - classifier
        lacks = "it has no layers but its classifier" if classifier else "it has no classifier"
        kept, advice = kept if classifier else set(), ""
    require(
        bool(kept),
        f"train.learned is {learned}, but nothing of this network would be learned so: {lacks}; "
        f"use {advice}--set train.learned=all",
    )
    for parameter in student.parameters():
        parameter.requires_grad_(parameter.requires_grad and id(parameter) in kept)


def norm_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The weights and biases of all normalization layers that have a gradient, each once."""
    layers = [m for m in network.modules() if isinstance(m, _NORMS)]
    found = {id(p): p for m in layers for p in m.parameters() if p.requires_grad}
    return list(found.values())


def student_groups(student: Segmenter, train: TrainConfig) -> list[ParameterGroup]:
    """The trained parameters of the student, each in one group: the backbone's, layer by layer
    where these have learning rates of their own, then the others; split by weight decay.

    Raises InputError when the settings ask for layers or for parameters without decay, and there
    are none.
    """
    groups = _backbone_groups(student, train)
    groups.append({"params": student.head_parameters(), "lr_factor": train.head_lr_factor})
    return groups if train.decay_norms else without_decay(student, groups, kind=train.undecayed)


def _backbone_groups(student: Segmenter, train: TrainConfig) -> list[ParameterGroup]:
    """Layer i of n learns at the backbone's rate times layer_decay ** (n - 1 - i): the deepest is
    not slowed down.

    Source: Clark et al., "ELECTRA", ICLR 2020, arXiv 2003.10555; for networks of images Bao et
    al., "BEiT", ICLR 2022, arXiv 2106.08254.
    """
    trained = student.backbone_parameters()
    factor = train.backbone_lr_factor
    if train.layer_decay == 1:
        return [{"params": trained, "lr_factor": factor}]
    require(
        isinstance(student.backbone, Encoder),
        f"train.layer_decay is {train.layer_decay}, but the backbone of this network does not tell "
        "the order of its layers: use --set train.layer_decay=1",
    )
    assert isinstance(student.backbone, Encoder)
    layers = student.backbone.layers()
    listed = [id(p) for layer in layers for p in layer if p.requires_grad]
    assert sorted(listed) == sorted(map(id, trained)), "layers() has every parameter, and once"
    groups: list[ParameterGroup] = []
    for depth, layer in enumerate(layers):
        parameters = [p for p in layer if p.requires_grad]
        if parameters:
            share = train.layer_decay ** (len(layers) - 1 - depth)
            groups.append({"params": parameters, "lr_factor": factor * share})
    return groups


def without_decay(
    network: nn.Module, groups: Sequence[ParameterGroup], *, kind: Undecayed = "norms"
) -> list[ParameterGroup]:
    """`groups`, split so that the parameters of `kind` (see TrainConfig) do not decay.

    Raises InputError when there are none.
    """
    kept = _undecayed(network, kind)
    split: list[ParameterGroup] = []
    for group in groups:
        decayed = [p for p in group["params"] if id(p) not in kept]
        others = [p for p in group["params"] if id(p) in kept]
        factor = group["lr_factor"]
        if decayed or not others:
            split.append({"params": decayed, "lr_factor": factor})
        if others:
            split.append({"params": others, "lr_factor": factor, "weight_decay": 0.0})
    if not any("weight_decay" in group for group in split):
        raise InputError(
            f"train.decay_norms is false, but this network trains no {_WORDS[kind]}: "
            "add --set train.decay_norms=true"
        )
    return split


_WORDS = {
    "norms": "normalization and no embedding",
    "encoder_norms": "normalization in its encoder",
    "one_dimensional": "normalization, bias or embedding",
}


def _undecayed(network: nn.Module, kind: Undecayed) -> set[int]:
    """The ids of the parameters of `kind`."""
    if kind == "encoder_norms":
        # As in DAFormer, whose rule goes by names: the encoder's "norm", not the head's "bn".
        network = network.backbone if isinstance(network, Segmenter) else network
        return {id(p) for m in network.modules() if isinstance(m, _NORMS) for p in m.parameters()}
    layers = [m for m in network.modules() if isinstance(m, (*_NORMS, nn.Embedding))]
    found = {id(p) for layer in layers for p in layer.parameters()}
    names = ("embed",) if kind == "norms" else _EMBEDDINGS
    found |= {id(p) for name, p in network.named_parameters() if name.endswith(names)}
    if kind == "one_dimensional":
        found |= {id(p) for p in network.parameters() if p.ndim <= 1}
    return found
