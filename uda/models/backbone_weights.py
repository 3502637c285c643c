"""Initial weights of ResNet trunks: torchvision's download, or a file that has to fit."""

import hashlib
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.models import WeightsEnum, get_model_weights

from uda.errors import InputError, tally

if TYPE_CHECKING:
    from uda.models.backbones import ResNetBackbone


def load_imagenet(backbone: "ResNetBackbone", name: str) -> None:
    """Fills `backbone` with torchvision's IMAGENET1K_V1 weights of the network `name`.

    Raises InputError when they cannot be downloaded.
    """
    published = get_model_weights(name)["IMAGENET1K_V1"]
    _load(backbone, _download(name, published), origin=str(published))
    backbone.provenance = f"torchvision {published}"


def _download(name: str, published: WeightsEnum) -> Mapping[str, object]:
    try:
        state: Mapping[str, object] = published.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    except (OSError, HTTPException) as error:
        raise InputError(
            f"the ImageNet weights of {name} could not be downloaded from {published.url} "
            f"({_reason(error)}): use --set model.backbone_weights=none, or the path of a file"
        ) from error
    except Exception as error:  # as in _read; a wrong hash is a RuntimeError
        folder = Path(torch.hub.get_dir(), "checkpoints")
        raise InputError(
            f"the ImageNet weights of {name} came from {published.url} damaged "
            f"({_reason(error)}): delete {folder / Path(published.url).name} and try again"
        ) from error
    return state


def load_file(backbone: "ResNetBackbone", path: Path, *, allowed: str) -> None:
    """Fills `backbone` from a state dict on disk and writes down which; `allowed` are the other
    values of model.backbone_weights, for the message.

    Raises InputError when the file is missing, damaged, or another network's.
    """
    if not path.is_file():
        raise InputError(
            f"model.backbone_weights is {str(path)!r}, which is no file; allowed: {allowed}, or "
            f"the path of a {backbone.file_kind}"
        )
    _load(backbone, _read(path), origin=str(path))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    backbone.provenance = f"file {path.name} sha256:{digest}"


def _read(path: Path) -> Mapping[str, object]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise nearly anything
        raise InputError(
            f"{path} cannot be read as weights ({_reason(error)}): give a file that torch.save "
            "wrote from a state dict of tensors"
        ) from error
    for outer in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(outer), Mapping):
            content = content[outer]
    if not isinstance(content, Mapping):
        raise InputError(
            f"{path} holds a {type(content).__name__}; allowed: a state dict, alone or under "
            "'state_dict' or 'model'"
        )
    return content


def _load(backbone: "ResNetBackbone", state: Mapping[str, object], *, origin: str) -> None:
    """Fills `backbone` from `state`, of which only heads may be left over."""
    found = {}
    for key, value in state.items():
        name = str(key)
        for prefix in backbone.prefixes:
            name = name.removeprefix(prefix)
        if not name.startswith(backbone.heads):
            found[name] = value
    wanted = backbone.state_dict()
    for name, value in wanted.items():
        # Files from before torch 0.4.1 lack these counters, which nothing reads at a set momentum.
        if name.endswith(".num_batches_tracked"):
            found.setdefault(name, value)
    fits = {
        name: value
        for name, value in found.items()
        if name in wanted and isinstance(value, Tensor) and value.shape == wanted[name].shape
    }
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    misshapen = [name for name in found if name in wanted and name not in fits]
    if missing or unexpected or misshapen:
        raise InputError(
            f"{origin} does not hold the weights of a {backbone.title}: {len(fits)} of "
            f"{len(wanted)} entries match, {tally(missing)} missing, {tally(unexpected)} "
            f"unexpected, {tally(misshapen)} of another shape; give a {backbone.file_kind} of that "
            "network"
        )
    backbone.load_state_dict(fits)


def _reason(error: Exception) -> str:
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
