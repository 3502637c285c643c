"""Packages that only some networks need: imported when one is asked for, or named in one line."""

from importlib import import_module
from types import ModuleType
from typing import Literal

from uda.errors import InputError

Extra = Literal["timm", "smp", "transformers"]

_PACKAGES = {"timm": "timm", "smp": "segmentation_models_pytorch", "transformers": "transformers"}


def require_extra(extra: Extra, *, needed_by: str) -> ModuleType:
    """The package of an optional extra; InputError, with what installs it, when it is not there.

    needed_by: what cannot be had without it, in words, e.g. "a backbone of timm"
    """
    try:
        return import_module(_PACKAGES[extra])
    except ModuleNotFoundError as error:
        raise InputError(
            f"{needed_by} needs the package {error.name}, which is not installed: "
            f"pip install 'uda[{extra}]', or pip install --editable '.[{extra}]' in a checkout"
        ) from None
