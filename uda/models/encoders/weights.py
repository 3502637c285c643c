"""Initial weights of ResNet trunks: torchvision's download, or a file that has to fit."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torchvision.models import WeightsEnum, get_model_weights

from uda.utilities.errors import InputError, require
from uda.utilities.weight_files import compare, read_weights, reason, sha256, unwrapped

if TYPE_CHECKING:
    from uda.models.encoders.resnet import Backbone, ResNetBackbone


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
            f"({reason(error)}): use --set model.backbone_weights=none, or the path of a file"
        ) from error
    except Exception as error:  # as in read_weights; a wrong hash is a RuntimeError
        folder = Path(torch.hub.get_dir(), "checkpoints")
        raise InputError(
            f"the ImageNet weights of {name} came from {published.url} damaged "
            f"({reason(error)}): delete {folder / Path(published.url).name} and try again"
        ) from error
    return state


def load_file(backbone: "Backbone", path: Path, *, allowed: str) -> None:
    """Fills `backbone` from a state dict on disk and writes down which; `allowed` are the other
    values of model.backbone_weights, for the message.

    Raises InputError when the file is missing, damaged, or another network's.
    """
    require(
        path.is_file(),
        f"model.backbone_weights is {str(path)!r}, which is no file; allowed: {allowed}, or "
        f"the path of a {backbone.file_kind}",
    )
    content = read_weights(
        path,
        expected=f"a {backbone.file_kind}",
        instead=f"python scripts/convert_checkpoint.py --tensors {path} OUT takes its tensors out, "
        "and runs nothing",
    )
    require(
        isinstance(content, Mapping),
        f"{path} holds a {type(content).__name__}; allowed: a state dict, alone or under "
        "'state_dict', 'model_state' or 'model'",
    )
    _load(backbone, unwrapped(content, backbone.prefixes), origin=str(path))
    backbone.provenance = f"file {path.name} sha256:{sha256(path)}"


def _load(backbone: "Backbone", state: Mapping[str, object], *, origin: str) -> None:
    """Fills `backbone` from `state`; nothing may be left over but what the backbone leaves out."""
    found = compare(
        backbone.entries(state), {name: t.shape for name, t in backbone.state_dict().items()}
    )
    require(
        found.complete and not found.unexpected,
        f"{origin} does not hold the weights of a {backbone.title}: {found}; give a "
        f"{backbone.file_kind} of that network",
    )
    backbone.load_state_dict(found.fitting | found.counters)
