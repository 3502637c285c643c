"""Tensors out of files that could run code, without running any.

torch.load builds what a file names. Here nothing is built while a file is read: every class and
function in it becomes a record of the name and of what it would have been called with. Of the
records, those that stand for tensors and dicts are then made into these, by code that is in this
file; a network that was saved whole becomes its state dict, as what it holds is named; the others
are dropped. So nothing of the file is imported, called or set as an attribute.
"""

import io
import os
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from uda.utilities.errors import InputError
from uda.utilities.extras import MissingPackageError
from uda.utilities.pickled_records import DICTS, Record, RecordUnpickler, entries_of
from uda.utilities.reading import opened
from uda.utilities.safetensors_files import is_safetensors, read_safetensors
from uda.utilities.torch_archives import ZIP, check_torch_file, checked_entries, pickle_of
from uda.utilities.weight_files import reason

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETERS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
_WITH_ATTRIBUTES = "torch._tensor._rebuild_from_type_v2"
_UNDERSTOOD = (*DICTS, *_TENSORS, *_PARAMETERS, _WITH_ATTRIBUTES)

_MODULE = ("_parameters", "_buffers", "_modules")  # attributes of every torch.nn.Module

_LONGEST = 80  # characters of a name that a message shows
_Ints = tuple[int, ...]

_GONE = object()  # in the place of what is dropped


def recover_tensors(path: Path) -> tuple[object, list[str]]:
    """What is in a file of torch.save, and the names of the classes and functions left out of it.

    Tensors (on the CPU, sharing memory where they did), dicts, lists, tuples, numbers and text are
    kept. Raises InputError when the file cannot be read so.
    """
    try:
        if is_safetensors(path):  # holds nothing else
            return read_safetensors(path), []
        with opened(path) as file:
            check_torch_file(file)
            archived = file.read(len(ZIP)) == ZIP
            file.seek(0)
            return _read_archive(file) if archived else _read_legacy(file)
    except MissingPackageError:
        raise
    except Exception as error:  # what is wrong with the file decides where reading it ends
        raise InputError(
            f"the tensors of {path} cannot be recovered ({reason(error)}): give a whole file that "
            "torch.save or safetensors wrote"
        ) from None


def _read_archive(file: BinaryIO) -> tuple[object, list[str]]:
    with zipfile.ZipFile(file) as archive:
        names = checked_entries(archive, os.fstat(file.fileno()).st_size)
        pickled = pickle_of(names)
        folder = pickled.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        _check_byte_order(archive.read(order).decode() if order in names else "little")
        found = RecordUnpickler(io.BytesIO(archive.read(pickled))).load()

        def content(key: str) -> bytearray:
            return bytearray(archive.read(f"{folder}data/{key}"))

        return _Interpreter(content).result(found)


def _read_legacy(file: BinaryIO) -> tuple[object, list[str]]:
    for _ in range(3):  # what they begin with
        RecordUnpickler(file).load()
    unpickler = RecordUnpickler(file)
    found = unpickler.load()
    sizes = {key: _dtype(kind).itemsize for _, kind, key, *_ in unpickler.stored}
    contents = {}
    for key in RecordUnpickler(file).load():
        (count,) = struct.unpack("<q", file.read(8))
        contents[key] = bytearray(file.read(count * sizes[key]))
    return _Interpreter(contents.__getitem__).result(found)


def _check_byte_order(order: str) -> None:
    if order != sys.byteorder:
        raise ValueError(f"its byte order is {order!a}, this machine's is {sys.byteorder!r}")


class _Interpreter:
    """Makes tensors and containers of records; `read` gives the bytes of a storage by its key."""

    def __init__(self, read: Callable[[str], bytearray]) -> None:
        self._read = read
        self._storages: dict[str, bytearray] = {}
        # By identity, with the object itself: while it is kept, no other can have its identity.
        self._made: dict[int, tuple[object, object]] = {}
        self._dropped: set[str] = set()

    def result(self, found: object) -> tuple[object, list[str]]:
        """What `found` stands for, and the sorted names of what was dropped."""
        made = self._make(found)
        # A terminal would obey what a file's author put into a name.
        names = sorted(ascii(name)[1:-1][:_LONGEST] for name in self._dropped)
        return (None if made is _GONE else made), names

    def _make(self, found: object) -> object:
        if found is None or isinstance(found, bool | int | float | str | bytes):
            return found
        if id(found) not in self._made:
            self._made[id(found)] = found, _GONE  # what holds itself is left out of itself
            self._made[id(found)] = found, self._make_new(found)
        return self._made[id(found)][1]

    def _make_new(self, found: object) -> object:
        if isinstance(found, dict):
            return self._dict(found)
        if isinstance(found, list | tuple):
            return type(found)(made for made in map(self._make, found) if made is not _GONE)
        if isinstance(found, Record) and found.name in _UNDERSTOOD:
            return self._interpret(found)
        if isinstance(found, Record) and self._is_module(found.state):
            return self._state_dict(found)
        self._dropped.add(getattr(found, "name", type(found).__name__))
        return _GONE

    def _interpret(self, record: Record) -> object:
        if record.name in DICTS:
            return self._dict(entries_of(record))
        if record.name in _TENSORS:
            return self._tensor(*record.arguments[:4])
        if record.name in _PARAMETERS:
            return self._make(record.arguments[0])
        function, _type, arguments, _state = record.arguments
        return self._make(function(*arguments))

    def _is_module(self, state: object) -> bool:
        """Whether an object's attributes are those of a torch.nn.Module."""
        entries = state if isinstance(state, dict) else {}
        return all(isinstance(entries_of(entries.get(part)), dict) for part in _MODULE)

    def _state_dict(self, module: Record) -> dict[str, object]:
        """What a network, or a part of one, would give as its state dict, but for the names of
        buffers that are not to be saved: these are left out where they can be told."""
        assert isinstance(module.state, dict)
        if not module.name.startswith("torch.nn."):
            self._dropped.add(module.name)
        parameters, buffers, modules = (self._dict(entries_of(module.state[p])) for p in _MODULE)
        passing = module.state.get("_non_persistent_buffers_set", ())
        if isinstance(passing, Record):  # a set, in older protocols
            passing = next(iter(passing.arguments), ())
        own = parameters | {n: v for n, v in buffers.items() if n not in passing}
        found: dict[str, object] = {str(n): v for n, v in own.items() if isinstance(v, Tensor)}
        for name, inner in modules.items():
            if isinstance(inner, dict):
                found |= {f"{name}.{own}": value for own, value in inner.items()}
        return found

    def _dict(self, entries: Mapping[Any, object]) -> dict[Any, object]:
        made = {name: self._make(value) for name, value in entries.items()}
        plain = bool | int | float | str | bytes
        return {n: v for n, v in made.items() if isinstance(n, plain) and v is not _GONE}

    def _tensor(self, storage: Record, offset: int, size: _Ints, stride: _Ints) -> Tensor:
        """A tensor over the numbers of `storage`; torch refuses places outside of them."""
        _, kind, key, _place, count, *view = storage.arguments
        if key not in self._storages:
            self._storages[key] = self._read(key)
        dtype, content = _dtype(kind), self._storages[key]
        if not 0 <= count * dtype.itemsize <= len(content):
            raise ValueError(f"{count} numbers are {len(content)} bytes")
        flat = torch.frombuffer(content, dtype=dtype, count=count) if count else torch.empty(0)
        if view and view[0] is not None:
            _, first, length = view[0]
            flat = flat[first : first + length]
        return flat.to(dtype).as_strided(size, stride, offset)


def _dtype(kind: type[Record]) -> torch.dtype:
    """Of a storage class such as torch.FloatStorage or torch.cuda.FloatStorage."""
    return _DTYPES[kind.name.rpartition(".")[2]]
