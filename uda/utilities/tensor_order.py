"""Files with the tensors of a network under another project's names: taken by their order."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from uda.utilities.errors import InputError

_PREFIX = "in-order:"  # before the path of a file, in a setting of weights
_HEAD = 8  # tensors that may follow those of an encoder: a convolution, its norm, a classifier
Pairs = Mapping[str, tuple[str, Tensor]]


def split_order(given: str) -> tuple[Path, bool]:
    """The path in a setting of weights, and whether its tensors are to be taken in their order."""
    return Path(given.removeprefix(_PREFIX)), given.startswith(_PREFIX)


def in_order(entries: Mapping[str, Tensor], shapes: Mapping[str, torch.Size]) -> Pairs | None:
    """The `entries` of a file, each with its name, by the names of a network with these `shapes`;
    None unless shapes and ends of names (weight, bias, running_mean) are equal one after the other.
    A head may follow."""
    if not 0 < len(shapes) <= len(entries) <= len(shapes) + _HEAD:
        return None
    pairs = dict(zip(shapes, entries.items(), strict=False))
    fits = all(
        value.shape == shapes[own] and name.rpartition(".")[2] == own.rpartition(".")[2]
        for own, (name, value) in pairs.items()
    )
    return pairs if fits else None


def is_prefixed(found: Pairs) -> bool:
    """Whether names differ in what they begin with only, as those of Caffe's ResNets do, which
    compute something else."""
    return all(name.endswith(own) for own, (name, _) in found.items())


def taken_in_order(found: Pairs | None, path: Path, title: str) -> dict[str, object]:
    """The tensors under the network's names; InputError where none were found."""
    if found is None:
        raise InputError(
            f"{path}: its tensors do not have the order and the shapes of a {title}: give a file "
            f"of that network, without {_PREFIX} if it has the network's names"
        )
    return {own: value for own, (_, value) in found.items()}


def offer(found: Pairs, path: Path, title: str, option: str) -> str:
    """What to say of a file with other names, given by `option`, of which `found` is the order."""
    pairs = [f"{own} is {name}" for own, (name, _) in found.items()]
    return (
        f"{path} does not have the names of a {title}, but all its {len(pairs)} tensors, with the "
        f"same shapes in the same order ({pairs[0]}; ...; {pairs[-1]}): if that is the network "
        f"under another project's names, use --set {option}={_PREFIX}{path}"
    )
