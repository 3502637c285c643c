"""Files of torch.save, read without running code; and their digests."""

import hashlib
import pickle
import re
import warnings
from pathlib import Path

import torch

from uda.errors import InputError

# How torch words what it will not build: a class or function, by name.
_REFUSED = (
    r"Unsupported global: GLOBAL (\S+) was not an allowed global",
    r"Trying to load unsupported GLOBAL (\S+) whose module",
)


class UnsafeFileError(InputError):
    """A file holds more than tensors and plain values, or is damaged: torch refuses to say which
    before it has run what could be code."""


def read_weights(path: Path, *, expected: str, instead: str) -> object:
    """What `torch.save` wrote, on the CPU. No code of the file is run.

    Raises InputError when the file is missing, naming what is `expected`, or cannot be read; and
    UnsafeFileError, saying what to do `instead`, when it could run code.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a device or a pipe, which is no file: give {expected}")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch comments on files of other tools
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected {expected}") from None
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(f"{path} {_what_torch_refused(error)}: {instead}") from None
    except Exception as error:  # damaged archives raise whatever the reader stumbles over
        raise InputError(
            f"{path} cannot be read as weights ({reason(error)}): give {expected}"
        ) from None


def _what_torch_refused(error: pickle.UnpicklingError) -> str:
    for pattern in _REFUSED:
        if found := re.search(pattern, str(error)):
            name = ascii(found[1])[1:-1]  # a terminal would obey what a file's author put in
            return f"holds {name}, which could run code when loaded"
    return "is damaged, or holds objects beyond tensors and plain values, which could run code"


def reason(error: Exception) -> str:
    """The kind of an error and the beginning of its message, in one line."""
    text = " ".join([f"{type(error).__name__}:", *str(error).split()])
    return text[:120].removesuffix(":")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(path: Path) -> str:
    """The file's name and the beginning of its SHA-256, as runs store it."""
    return f"{path.name} sha256:{sha256(path)[:12]}"
