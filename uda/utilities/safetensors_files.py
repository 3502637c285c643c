"""Files of safetensors: tensors and text, which no reader can be made to run."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from uda.utilities.errors import InputError
from uda.utilities.extras import require_extra
from uda.utilities.reading import opened
from uda.utilities.sealed_files import DamagedFileError
from uda.utilities.tensor_values import weights_digest

SUFFIX = ".safetensors"
_KIND = "uda_format"  # in the metadata, what is "format" in a snapshot: there it means "pt"
_DIGEST = "uda_digest"
_SHA = "sha256:"
_LONGEST_HEADER = 100_000_000  # bytes; the library refuses longer ones
_MARKS = ({"list"}, {"pairs"})  # keys of dicts that stand for what JSON does not have


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as one of safetensors: the length of a JSON object, then that."""
    with opened(path) as file:
        beginning = file.read(9)
    length = int.from_bytes(beginning[:8], "little")
    return beginning[8:] == b"{" and length <= _LONGEST_HEADER


def read_safetensors(path: Path) -> dict[str, Any]:
    """The tensors of a file by name, on the CPU; or, of a file that `write_safetensors` was given
    a snapshot for, the snapshot.

    Raises InputError when the package is missing, and the library's errors for damaged files.
    """
    with _library("safetensors").safe_open(path, framework="pt", device="cpu") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        metadata = file.metadata() or {}
    _check_digest(tensors, metadata)
    if _KIND not in metadata:
        return tensors
    apart = ("format", _KIND, _DIGEST)
    texts = {name: text for name, text in metadata.items() if name not in apart}
    values = {name: _decoded(json.loads(text)) for name, text in texts.items()}
    return {"format": metadata[_KIND]} | values | {"student": tensors, "teacher": None}


def write_safetensors(
    file: BinaryIO, tensors: Mapping[str, Tensor], snapshot: Mapping[str, Any] | None = None
) -> None:
    """Writes tensors and, in the metadata, the other values of a `snapshot` of which they are the
    student: each as JSON, a tuple as a list.

    Raises InputError when the package is missing.
    """
    metadata = {"format": "pt"}  # as transformers and timm have it
    if snapshot is not None:
        others = {n: v for n, v in snapshot.items() if n not in ("format", "student", "teacher")}
        metadata[_KIND] = snapshot["format"]
        metadata |= {name: json.dumps(_encoded(value)) for name, value in others.items()}
    # A file holds no tensor twice, and knows no strides.
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    metadata[_DIGEST] = _digest(whole, metadata)
    file.write(_library("safetensors.torch").save(whole, metadata))


def _digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """SHA-256 of the tensors and of all texts, but for that of digests."""
    found = hashlib.sha256(weights_digest(tensors).encode())
    for item in sorted(metadata.items()):
        if not item[1].startswith(_SHA):
            found.update(json.dumps(item).encode())
    return f"{_SHA}{found.hexdigest()}"


def _check_digest(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Compares the digest of a file that this library wrote with its content."""
    # Also by its value: the name, too, may be what is damaged.
    stored = {n: text for n, text in metadata.items() if n == _DIGEST or text.startswith(_SHA)}
    if stored and stored != {_DIGEST: _digest(tensors, metadata)}:
        raise DamagedFileError("its content does not match its digest")


def _library(package: str) -> Any:  # noqa: ANN401 - a module of an optional package
    return require_extra("safetensors", needed_by="a file of safetensors", package=package)


def _encoded(value: object) -> object:
    """`value` without what JSON does not have."""
    if isinstance(value, tuple):
        return [_encoded(inner) for inner in value]
    if isinstance(value, list):
        return {"list": [_encoded(inner) for inner in value]}
    if isinstance(value, Mapping):
        if all(isinstance(name, str) for name in value) and set(value) not in _MARKS:
            return {name: _encoded(inner) for name, inner in value.items()}
        return {"pairs": [[_encoded(name), _encoded(inner)] for name, inner in value.items()]}
    return value


def _decoded(value: object) -> Any:  # noqa: ANN401 - any plain value
    """What `_encoded` was given."""
    if isinstance(value, list):
        return tuple(_decoded(inner) for inner in value)
    if not isinstance(value, dict):
        return value
    marked = set(value) in _MARKS and next(iter(value.values()))
    if not isinstance(marked, list):
        return {name: _decoded(inner) for name, inner in value.items()}
    if "list" in value:
        return [_decoded(inner) for inner in marked]
    if not all(isinstance(pair, list) and len(pair) == 2 for pair in marked):
        raise InputError("its metadata is not as this library writes it")
    return {_decoded(name): _decoded(inner) for name, inner in marked}
