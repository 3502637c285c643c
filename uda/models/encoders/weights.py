"""Initial weights of encoders: torchvision's download, or a file that has to fit."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import torch
from torchvision.models import WeightsEnum, get_model_weights

from uda.models.encoders.base import Encoder
from uda.utilities.errors import InputError, require
from uda.utilities.weight_files import fill, fill_from_file, reason


def load_imagenet(backbone: Encoder, name: str) -> None:
    """Fills `backbone` with torchvision's IMAGENET1K_V1 weights of the network `name`.

    Raises InputError when they cannot be downloaded.
    """
    published = get_model_weights(name)["IMAGENET1K_V1"]
    entries = backbone.entries(_download(name, published))
    fill(backbone, entries, origin=str(published), title=backbone.title, instead=_instead(backbone))
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
            f"the ImageNet weights of {name} arrived damaged from {published.url} "
            f"({reason(error)}): delete {folder / Path(published.url).name} and try again"
        ) from error
    return state


def load_file(backbone: Encoder, path: Path, *, allowed: str) -> None:
    """Fills `backbone` from a state dict on disk and notes which; `allowed` are the other values
    of model.backbone_weights, for the message.

    Raises InputError when the file is missing, damaged, or another network's.
    """
    require(
        path.is_file(),
        f"model.backbone_weights is {str(path)!r}, which is not a file; allowed: {allowed}, or "
        f"the path of a {backbone.file_kind}",
    )
    file = fill_from_file(
        backbone,
        path,
        title=backbone.title,
        kind=backbone.file_kind,
        instead=_instead(backbone),
        prefixes=backbone.prefixes,
        select=backbone.entries,
    )
    backbone.provenance = f"file {file}"


def _instead(backbone: Encoder) -> str:
    return f"give a {backbone.file_kind} of that network"
