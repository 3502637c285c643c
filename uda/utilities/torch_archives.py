"""Files of torch.save: whether they are whole, and what reading them would cost.

torch checks neither the checksums of its archives nor whether a tensor's numbers are there; a
damaged file is computed with, and one made on purpose makes it read beyond its memory.
"""

import io
import math
import struct
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from uda.utilities.pickled_records import (
    ORDERED_DICT,
    STORED,
    Record,
    RecordUnpickler,
    check_key,
    check_size,
)
from uda.utilities.reading import opened
from uda.utilities.sealed_files import DamagedFileError, check_seal, is_seal

ZIP = b"PK\x03\x04"
_LEGACY = 0x1950A86A20F9469CFC6C  # begins torch's files from before they were archives
_MOST_ENTRIES = 200_000
_LONGEST_PICKLE = 2**26  # bytes
_REPEATED = 8  # times: as often may the tensors of a file share the numbers in it
_LARGEST = 2**31  # bytes: no more than a large network may be made of repeated numbers

_ITEM_SIZES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2,
    "LongStorage": 8, "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1,
    "BoolStorage": 1, "ComplexDoubleStorage": 16, "ComplexFloatStorage": 8, "QInt8Storage": 1,
    "QInt32Storage": 4, "QUInt8Storage": 1, "QUInt4x2Storage": 1, "QUInt2x4Storage": 1,
    "UntypedStorage": 1,
}  # fmt: skip
_OF_STORAGES = tuple(
    f"torch._utils.{name}"
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_qtensor")
)
# What torch itself lets a file call, and what could then take any amount of memory or time.
_BY_SIZE = ("Tensor", "Storage")
_ODD = ("torch._utils._rebuild_device_tensor", "torch._utils._rebuild_wrapper")
_SETS = ("builtins.set", "builtins.frozenset", "__builtin__.set", "collections.Counter")
_CODECS = ("latin1", "latin-1", "utf-8", "utf8", "ascii")


def check_torch_file(file: BinaryIO) -> None:
    """Reads all of a file that torch.save wrote. Raises DamagedFileError when it is not whole, by
    its digest if this library wrote it, else by its archive's checksums, or when it holds what
    would take more memory or time than its length accounts for. Other errors are of its readers.

    Older files, which are no archives, have no checksums. The file's position is at its beginning
    afterwards.
    """
    archived = file.read(len(ZIP)) == ZIP
    file.seek(0)
    if archived:
        sealed = check_seal(file, _length(file))
        with zipfile.ZipFile(file) as archive:
            entries = checked_entries(archive, _length(file))
            if not sealed:
                _check_sums(archive)
            _check_pickle(archive, entries)
    else:
        _check_legacy(file)
    file.seek(0)


def values_without_tensors(path: Path) -> object:
    """The plain values in an archive of torch.save, with records in the place of tensors, which are
    not read: of a large file, a moment's work. Raises what the readers of damaged files raise."""
    with opened(path) as file, zipfile.ZipFile(file) as archive:
        return _check_pickle(archive, checked_entries(archive, _length(file)))


def checked_entries(archive: zipfile.ZipFile, length: int) -> dict[str, zipfile.ZipInfo]:
    """The entries of an archive of `length` bytes by name. Raises DamagedFileError for what
    torch.save does not write, such as compressed ones, which may be larger than any memory."""
    found = archive.infolist()
    if len(found) > _MOST_ENTRIES:
        raise DamagedFileError(f"it has {len(found)} entries; allowed: {_MOST_ENTRIES}")
    if any(info.filename.endswith("/constants.pkl") for info in found):
        raise DamagedFileError("it is a TorchScript archive, which is a program: save a state dict")
    if any(info.compress_type != zipfile.ZIP_STORED for info in found):
        raise DamagedFileError("its entries are compressed, which torch.save does not do")
    if sum(info.file_size for info in found) > length:
        raise DamagedFileError("its entries are larger than the file")
    if not any(info.CRC for info in found):  # torch can be told to leave them out
        for info in found:
            del info.CRC  # so that zipfile does not compare it
    # torch looks names up without regard to their case.
    names = {info.filename.lower(): info for info in found}
    if len(names) < len(found):
        raise DamagedFileError("it has two entries of one name")
    return {info.filename: info for info in found}


def pickle_of(entries: Mapping[str, zipfile.ZipInfo]) -> str:
    """The name of the entry that says what the others are. Raises DamagedFileError when there is
    not one, or it is too long."""
    found = [name for name in entries if name.endswith("/data.pkl")]
    if len(found) != 1:
        raise DamagedFileError(f"it has {len(found)} entries data.pkl; allowed: 1")
    if entries[found[0]].file_size > _LONGEST_PICKLE:
        raise DamagedFileError(f"its data.pkl is longer than {_LONGEST_PICKLE} bytes")
    return found[0]


def _length(file: BinaryIO) -> int:
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    return length


def _check_sums(archive: zipfile.ZipFile) -> None:
    """Compares every entry with its checksum, if there are any."""
    if is_seal(archive.comment):
        raise DamagedFileError("something was added after its digest")
    damaged = archive.testzip()
    if damaged is not None:
        raise DamagedFileError(f"its entry {damaged!a} does not match its checksum")


def _check_pickle(archive: zipfile.ZipFile, entries: Mapping[str, zipfile.ZipInfo]) -> object:
    name = pickle_of(entries)
    folder = name.removesuffix("data.pkl")
    unpickler = RecordUnpickler(io.BytesIO(archive.read(name)))
    found = unpickler.load()
    sizes = {}
    for stored in unpickler.stored:
        key = _key(stored)
        if f"{folder}data/{key}" not in entries:
            raise DamagedFileError(f"its storage {key!a} is missing")
        sizes[key] = entries[f"{folder}data/{key}"].file_size
    _check_records(unpickler, found, sizes)
    return found


def _check_legacy(file: BinaryIO) -> None:
    length = _length(file)
    if RecordUnpickler(file).load() != _LEGACY:
        return  # another pickle, which torch refuses; it says what could run code
    _version, system = (RecordUnpickler(file).load() for _ in range(2))
    little = system.get("little_endian", True) if isinstance(system, dict) else None
    if little is not (sys.byteorder == "little"):
        raise DamagedFileError("it was written on a machine of another byte order")
    unpickler = RecordUnpickler(file)
    found = unpickler.load()
    items = {_key(stored): _item_size(stored[1]) for stored in unpickler.stored}
    sizes = {}
    for key in RecordUnpickler(file).load():
        if not isinstance(key, str) or key not in items:
            raise DamagedFileError("it names a storage that nothing needs")
        (count,) = struct.unpack("<q", file.read(8))
        sizes[key] = count * items[key]
        if count < 0 or file.tell() + sizes[key] > length:
            raise DamagedFileError("it ends before its last storage does")
        file.seek(sizes[key], io.SEEK_CUR)
    if items.keys() - sizes.keys():
        raise DamagedFileError("some of its storages are missing")
    _check_records(unpickler, found, sizes)


def _key(stored: tuple[Any, ...]) -> str:
    if len(stored) < 5 or not isinstance(stored[2], str):
        raise DamagedFileError("it refers to a storage as torch does not")
    return stored[2]


def _item_size(kind: object) -> int:
    name = str(getattr(kind, "name", "")).rpartition(".")[2]
    if name not in _ITEM_SIZES:
        raise DamagedFileError(f"it has a storage of an unknown kind, {ascii(name)[:40]}")
    return _ITEM_SIZES[name]


def _check_records(unpickler: RecordUnpickler, found: object, sizes: Mapping[str, int]) -> None:
    """`sizes`: bytes of each storage in the file."""
    for stored in unpickler.stored:
        count, *view = stored[4:]
        if type(count) is not int or not 0 <= count * _item_size(stored[1]) <= sizes[_key(stored)]:
            raise DamagedFileError("a storage in it is larger than what the file has of it")
        first, length = _view(view)
        if not 0 <= first <= first + length <= count:
            raise DamagedFileError("a storage in it is a part of another that has no such part")
    total = sum(_checked_call(record) for record in unpickler.made)
    if total > _REPEATED * sum(sizes.values()) + _LARGEST:
        raise DamagedFileError(
            f"its tensors are {total} bytes, the numbers in it {sum(sizes.values())}: they repeat "
            "them, with strides of 0"
        )
    check_size(found)


def _view(view: list[Any]) -> tuple[int, int]:
    """Where the part of a storage that stands for one begins, and its length; (0, 0) for all."""
    if not view or view[0] is None:
        return 0, 0
    _, *place = view[0]
    if [type(number) for number in place] != [int, int]:
        raise DamagedFileError("a part of a storage has no place in it")
    return place[0], place[1]


def _checked_call(record: Record) -> int:
    """The bytes of the tensor that `record` stands for; 0 for other objects.

    Raises DamagedFileError for a tensor outside its storage, and for calls that cost more than
    their arguments.
    """
    if record.state is not None and record.name in _OF_STORAGES:
        raise DamagedFileError("a tensor in it is given another storage later")
    return _checked(record.name, record.arguments)


def _checked(name: str, arguments: tuple[Any, ...]) -> int:
    if name in _OF_STORAGES:
        return _tensor_bytes(arguments)
    if name == "torch._tensor._rebuild_from_type_v2":
        made, _, given, *_ = (*arguments, None, None, None)
        return _checked(str(getattr(made, "name", "")), given if isinstance(given, tuple) else ())
    if name in _SETS:
        for key in arguments[0] if arguments and isinstance(arguments[0], list | tuple) else ():
            check_key(key)
    elif name == ORDERED_DICT:
        for pair in arguments[0] if arguments and isinstance(arguments[0], list | tuple) else ():
            check_key(pair[0])
    elif name == "_codecs.encode":
        if len(arguments) > 1 and arguments[1] not in _CODECS:
            raise DamagedFileError("it encodes a text in a way that torch does not")
    elif name in ("builtins.bytearray", "__builtin__.bytearray"):
        if arguments and not isinstance(arguments[0], str | bytes | Record):
            raise DamagedFileError("it asks for memory by a number")
    elif name.startswith(_ODD) or (name.startswith("torch.") and name.endswith(_BY_SIZE)):
        raise DamagedFileError("it has tensors that torch.save does not write for the CPU")
    return 0


def _tensor_bytes(arguments: tuple[Any, ...]) -> int:
    """Of the tensor that torch would make of these arguments."""
    made: tuple[Any, ...] = (*arguments, None, None, None, None)
    storage, offset, *others = made[0], made[1], *made[4:]
    size, stride = _integers(made[2]), _integers(made[3])
    known = isinstance(storage, Record) and storage.name.endswith(STORED)
    if not known or not isinstance(offset, int) or offset < 0 or len(size) != len(stride):
        raise DamagedFileError("a tensor in it is described as torch does not")
    _, kind, _, _, count, *view = storage.arguments
    item = held = _item_size(kind)
    held *= _view(view)[1] or count
    if kind.name.endswith("UntypedStorage"):
        # Its numbers have a type of their own, such as torch.uint16.
        names = (str(getattr(part, "name", "")).removeprefix("torch.") for part in others)
        types = (getattr(torch, name, None) for name in names if name)
        item = next((dtype.itemsize for dtype in types if isinstance(dtype, torch.dtype)), item)
    if not math.prod(size):
        return 0
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if (last + 1) * item > held:
        raise DamagedFileError("a tensor in it lies outside its storage")
    return item * math.prod(size)


def _integers(found: object) -> tuple[int, ...]:
    if isinstance(found, Record) and found.name == "torch.Size":
        found = found.arguments[0] if found.arguments else ()
    if not isinstance(found, tuple | list) or not all(
        type(number) is int and number >= 0 for number in found
    ):
        raise DamagedFileError("a tensor in it has no shape")
    return tuple(found)
