"""Initial weights of encoders: torchvision's download, or a file that has to fit."""

from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path

import torch
from torchvision.models import WeightsEnum, get_model_weights

from uda.models.encoders.base import Encoder, EncoderConfig
from uda.utilities.errors import InputError, require
from uda.utilities.tensor_order import split_order
from uda.utilities.weight_files import fill, fill_from_file, reason


def load_imagenet(backbone: Encoder, config: EncoderConfig) -> None:
    """Fills `backbone` with torchvision's IMAGENET1K_V1 weights of the network `config.name`.

    Raises InputError when they cannot be downloaded.
    """
    published = get_model_weights(config.name)["IMAGENET1K_V1"]
    entries = backbone.entries(_download(config, published))
    fill(backbone, entries, origin=str(published), title=backbone.title, instead=_instead(backbone))
    backbone.provenance = f"torchvision {published}"


def _download(config: EncoderConfig, published: WeightsEnum) -> Mapping[str, object]:
    try:
        state: Mapping[str, object] = published.get_state_dict(
            progress=True, check_hash=True, weights_only=True
        )
    except (OSError, HTTPException) as error:
        folder = Path(torch.hub.get_dir(), "checkpoints")
        raise InputError(
            f"the ImageNet weights of {config.name} could not be downloaded from {published.url} "
            f"({reason(error)}): where there is a network, download that file, and put it into "
            f"{folder}; or use --set {config.option('weights')}=none, or the path of a file"
        ) from error
    except Exception as error:  # as in read_weights; a wrong hash is a RuntimeError
        folder = Path(torch.hub.get_dir(), "checkpoints")
        raise InputError(
            f"the ImageNet weights of {config.name} arrived damaged from {published.url} "
            f"({reason(error)}): delete {folder / Path(published.url).name} and try again"
        ) from error
    return state


def load_file(backbone: Encoder, config: EncoderConfig, *, allowed: str) -> None:
    """Fills `backbone` from the state dict at the path `config.weights` and notes which; `allowed`
    are the other values of that field, for the message.

    Raises InputError when the file is missing, damaged, or another network's.
    """
    path, by_order = split_order(config.weights)
    require(
        path.is_file(),
        f"{config.option('weights')} is {str(path)!r}, which is not a file; allowed: {allowed}, or "
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
        option=config.option("weights"),
        by_order=by_order,
    )
    backbone.provenance = f"file {file}"


def _instead(backbone: Encoder) -> str:
    return f"give a {backbone.file_kind} of that network"
