"""What a pickle says, without making it: every class and function in it becomes a record.

Nothing of a file is imported, called or set as an attribute, and what reading it costs is bounded
by the file's own length.
"""

import io
import pickle
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

STORED = "a storage"  # name of the records of what lies outside the pickle
ORDERED_DICT = "collections.OrderedDict"
DICTS = (ORDERED_DICT, "collections.defaultdict")

_MOST_PARTS = 4_000_000  # of a pickle; a network of 5,000 tensors has some 100,000
_DEEPEST = 200  # levels; a network that was saved whole has some 60
_LARGEST = 5_000_000  # values, each counted wherever it occurs
_PLAIN = (bool, int, float, str, bytes)


class Record:
    """An object that a file would have had made: what was called with which arguments, and what was
    set as its entries. Whatever else a file does to it has no effect."""

    name = ""  # of the class or function; each has a subclass of its own
    arguments: tuple[Any, ...]
    entries: dict[object, object]
    state: object = None  # what the object would have had as attributes

    def __new__(cls, *arguments: object, **_: object) -> "Record":
        record = object.__new__(cls)
        record.arguments = arguments
        record.entries = {}
        return record

    def __setitem__(self, key: object, value: object) -> None:
        self.entries[key] = value

    def __call__(self, *_: object, **__: object) -> "Record":
        record = Record()
        record.name = f"{self.name}()"
        return record

    def _ignore(self, *_: object) -> None:
        pass

    append = extend = add = _ignore

    def __setstate__(self, *state: object) -> None:
        if state:  # a file may call it on the class, with the state in the place of the object
            (self.state,) = state


class _Counted(dict[int, Any]):
    """pickle's table of what each part does, which it looks at once per part."""

    def __init__(self, table: dict[int, Any]) -> None:
        super().__init__(table)
        self.parts = 0

    def __getitem__(self, part: int) -> Any:  # noqa: ANN401 - a method of pickle's
        self.parts += 1
        if self.parts > _MOST_PARTS:
            raise ValueError(f"it has more than {_MOST_PARTS} parts")
        return super().__getitem__(part)


class _Within:
    """A file, of which no more is ever asked than it has: pickle reserves what it asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        place = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(place)
        self.readline = file.readline

    def read(self, count: int = -1) -> bytes:
        return self._file.read(min(count, self._end) if count >= 0 else count)


class RecordUnpickler(pickle._Unpickler):
    """Makes records, and containers and plain values of Python's own.

    It is pickle's version in Python: the one in C reserves as much memory as a file cares to name.
    `load` raises ValueError, among others, for a pickle that is damaged, has too many parts, or
    holds what takes for ever to look at.
    """

    def __init__(self, file: BinaryIO) -> None:
        # latin1 reads every byte: text of Python 2, and numbers that it stored as text.
        super().__init__(_Within(file), encoding="latin1")
        vars(self)["dispatch"] = _Counted(_DISPATCH)  # counts for this file alone
        self.stored: list[tuple[Any, ...]] = []
        self.made: list[Record] = []  # all that was called, in order
        self._records: dict[tuple[str, str], type[Record]] = {}

    def find_class(self, module: str, name: str) -> type[Record]:
        """A record's class in the place of the class or function that a file asks for."""
        if (module, name) not in self._records:
            made = self.made

            def kept(cls: type[Record], *arguments: object, **_: object) -> Record:
                record = Record.__new__(cls, *arguments)
                made.append(record)
                return record

            # A new one for each file: what a file did to it would end with the file.
            own = {"name": f"{module}.{name}", "__new__": kept}
            self._records[module, name] = type("_Named", (Record,), own)
        return self._records[module, name]

    def persistent_load(self, identifier: tuple[Any, ...]) -> object:
        """A record of numbers that lie outside the pickle, by torch's description of them."""
        if not isinstance(identifier, tuple) or not isinstance(identifier[0], str):
            raise ValueError("it refers to what is no storage")
        if identifier[0] != "storage":
            return identifier[1]  # a network's class, which old files store with its source
        self.stored.append(identifier)
        return self.find_class("", STORED)(*identifier)


def check_key(key: object) -> None:
    """Raises ValueError for what is no plain key: the hash of a nested one may take for ever."""
    parts = key if isinstance(key, tuple) and len(key) <= 8 else (key,)
    for part in parts:
        if part is not None and not isinstance(part, (*_PLAIN, Record, type)):
            raise ValueError(f"a dict or set in it has a {type(part).__name__} as a key")


def _checking(part: bytes, keys: Callable[[list[Any]], list[Any]]) -> Callable[[Any], None]:
    """pickle's method for `part`, which is called once the `keys` on its stack were checked."""
    original = pickle._Unpickler.dispatch[part[0]]

    def load(self: RecordUnpickler) -> None:
        for key in keys(self.stack):  # type: ignore[attr-defined]
            check_key(key)
        original(self)  # type: ignore[arg-type]  # the stubs know the version in C only

    return load


_DISPATCH = dict(pickle._Unpickler.dispatch) | {
    pickle.SETITEM[0]: _checking(pickle.SETITEM, lambda stack: stack[-2:-1]),
    pickle.SETITEMS[0]: _checking(pickle.SETITEMS, lambda stack: stack[::2]),
    pickle.DICT[0]: _checking(pickle.DICT, lambda stack: stack[::2]),
    pickle.ADDITEMS[0]: _checking(pickle.ADDITEMS, list),
    pickle.FROZENSET[0]: _checking(pickle.FROZENSET, list),
}


def entries_of(found: object) -> Any:  # noqa: ANN401 - as it is in the file
    """The dict that is or stands in the place of one; anything else as it is. Raises ValueError for
    one whose keys are not plain."""
    if not isinstance(found, Record) or found.name not in DICTS:
        return found
    # Python 2 gave an ordered dict its entries as a list of pairs.
    pairs = found.arguments[0] if found.name == ORDERED_DICT and found.arguments else ()
    for key, _ in pairs:
        check_key(key)
    return dict(pairs) | found.entries


def check_size(found: object) -> None:
    """Raises ValueError when going through all of `found` would take too long: it is nested too
    deeply, or repeats what it holds too often."""
    if _size(found, 0, {}) > _LARGEST:
        raise ValueError(f"it repeats what it holds: more than {_LARGEST} values in all")


def _size(value: object, depth: int, known: dict[int, int]) -> int:
    """How many values there are in `value`; one that holds itself is not counted in itself."""
    if not isinstance(value, dict | list | tuple | set | frozenset | Record):
        return 1
    if id(value) not in known:
        if depth > _DEEPEST:
            raise ValueError(f"it is nested more than {_DEEPEST} levels deep")
        known[id(value)] = 0
        inner = sum(_size(part, depth + 1, known) for part in _parts(value))
        known[id(value)] = min(1 + inner, _LARGEST + 1)
    return known[id(value)]


def _parts(value: Any) -> Iterator[object]:  # noqa: ANN401 - a container or a record
    if isinstance(value, Record):
        yield from (value.arguments, value.entries, value.state)
    elif isinstance(value, dict):
        yield from value.values()
    else:
        yield from value
