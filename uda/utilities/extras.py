"""Optional packages that only some networks need: imported on use, or named in one line."""

from importlib import import_module
from types import ModuleType
from typing import Literal

from uda.utilities.errors import InputError, shortened

Extra = Literal["timm", "smp", "transformers", "hub", "onnx", "safetensors"]

# The others are called as the extra.
_PACKAGES: dict[str, str] = {"smp": "segmentation_models_pytorch", "hub": "huggingface_hub"}


class MissingPackageError(InputError):
    """A package that only some things need is not there."""


def require_extra(extra: Extra, *, needed_by: str, package: str = "") -> ModuleType:
    """The package of an optional extra, or another `package` that it brings.

    Raises MissingPackageError, with the command that installs it, when it is missing or cannot be
    imported.

    needed_by: what needs it, in words, e.g. "a backbone of timm"
    """
    package = package or _PACKAGES.get(extra, extra)
    try:
        return import_module(package)
    except ImportError as error:  # packages also raise it when others have the wrong version
        if isinstance(error, ModuleNotFoundError):
            package, fault = error.name or package, "is not installed"
        else:
            fault = f"cannot be imported ({shortened(' '.join(str(error).split()), 200)})"
        raise MissingPackageError(
            f"{needed_by} needs the package {package}, which {fault}: "
            f"pip install 'uda[{extra}]', or pip install --editable '.[{extra}]' in a checkout"
        ) from None
