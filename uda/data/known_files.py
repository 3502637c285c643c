"""Which file a path leads to, and facts of files that are remembered until the file changes.

A file is identified by device and inode, so symbolic links, hard links, mounts and other spellings
of a path change nothing. Facts (an image's size, a digest) are kept in the user's cache folder: the
second start of a run opens no unchanged file and looks each up once.
"""

import hashlib
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from uda.data.files import Header
from uda.data.label_files import label_header
from uda.utilities.annotations import matches
from uda.utilities.errors import InputError
from uda.utilities.reading import opened, read_bytes, why
from uda.utilities.sealed_json import sealed, unsealed
from uda.utilities.user_cache import cache_file

_FORMAT = "uda-files-2"
_OLDER = ("uda-files-1",)  # without a digest
_MOST_ENTRIES = 400_000  # about 50 MB; the oldest go first
_LARGEST = 2**28  # bytes of the cache
_THREADS = 8  # a file system answers several questions at once
_TOGETHER = 256  # files that one thread looks up before it takes more
_SETTLED = 2 * 10**9  # ns; a file changed later could change again without another time
_END = 4096  # bytes at each end of a file: those of two pictures differ
_OF_HEADER = tuple(get_type_hints(Header).values())  # once: a run looks at every file's


class FileStamp(NamedTuple):
    """What the system says of a file without opening it."""

    device: int
    inode: int
    size: int  # bytes
    modified: int  # ns

    @property
    def identity(self) -> tuple[int, int]:
        """Equal for two paths exactly if they lead to the same file."""
        return self.device, self.inode

    @property
    def state(self) -> list[int]:
        """Another one means: the file has changed. The device is left out, since the number of a
        mounted one may change whenever the machine starts."""
        return [self.size, self.modified, self.inode]


def stamp_of(path: Path) -> FileStamp:
    """Raises InputError, naming the file, when there is none, or links lead in a circle."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): replace the file") from None
    return FileStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def has_settled(stamp: FileStamp) -> bool:
    """Whether a file was changed so long ago that another change would show in its stamp."""
    return stamp.modified < time.time_ns() - _SETTLED


class FileCache:
    """Facts by name, each with the state of the file that it was read of, in one JSON file."""

    def __init__(self, path: Path) -> None:
        """Reads `path`; one that is missing or damaged remembers nothing."""
        self.path = path
        self.complaint = ""  # why the last `save` did not work
        try:
            stored = unsealed(read_bytes(path, _LARGEST))
            entries = stored["files"] if stored["format"] in (_FORMAT, *_OLDER) else {}
        except (OSError, ValueError, LookupError, TypeError):
            entries = {}
        self._entries: dict[str, Any] = entries if isinstance(entries, dict) else {}
        self._changed = False

    def get(self, name: str, state: list[int]) -> Any:  # noqa: ANN401  # what JSON can hold
        """The fact called `name` if the file's state is the same; None if it is not known."""
        entry = self._entries.get(name)
        if isinstance(entry, list) and len(entry) == 2 and entry[0] == state:
            return entry[1]
        return None

    def put(self, name: str, state: list[int], fact: object) -> None:
        self._entries.pop(name, None)
        self._entries[name] = [state, fact]
        self._changed = True

    def save(self, *, always: bool = False) -> None:
        """Replaces the file, if there is news or `always`, at once or not at all; `complaint` says
        why if it cannot be."""
        self.complaint = ""
        if not self._changed and not always:
            return
        kept = dict(list(self._entries.items())[-_MOST_ENTRIES:])
        content = sealed({"format": _FORMAT, "files": kept}, indent=None)
        try:
            _replace(self.path, content)
            self._changed = False
        except OSError as error:
            self.complaint = f"{self.path} cannot be written ({error.strerror})"


class KnownFiles:
    """The files that one start of a command needs; each is looked up once."""

    def __init__(self) -> None:
        self._stamps: dict[Path, FileStamp] = {}
        self._cache = FileCache(cache_file("files.json"))

    def stamps(self, paths: Iterable[Path]) -> list[FileStamp]:
        """One for each path; InputError when one leads to no file."""
        wanted = list(paths)
        new = [path for path in dict.fromkeys(wanted) if path not in self._stamps]
        parts = [new[first : first + _TOGETHER] for first in range(0, len(new), _TOGETHER)]
        with ThreadPoolExecutor(_THREADS) as pool:
            for part, stamps in zip(parts, pool.map(_stamps_of, parts), strict=True):
                self._stamps.update(zip(part, stamps, strict=True))
        return [self._stamps[path] for path in wanted]

    def image_sizes(self, paths: Sequence[Path]) -> list[tuple[int, int]]:
        """(height, width) of each picture; InputError for what is none, naming the first."""
        return [header.size for header in self.headers(paths)]

    def headers(self, paths: Sequence[Path]) -> list[Header]:
        """What the header of each picture says; InputError for what is none, naming the first."""
        found = self._facts("header", label_header, paths, _is_header)
        return [Header(*map(_tupled, fields)) for fields in found]

    def lengths(self, paths: Sequence[Path]) -> list[int]:
        """Bytes of each file."""
        return [stamp.size for stamp in self.stamps(paths)]

    def ends(self, paths: Sequence[Path]) -> list[str]:
        """A digest of the beginning and the end of each file."""
        return self._facts("ends", _ends, paths, _is_text)

    def digests(self, paths: Sequence[Path]) -> list[str]:
        """A digest of all bytes of each file."""
        return self._facts("sha256", _digest, paths, _is_text)

    def _facts(
        self,
        kind: str,
        read: Callable[[Path], Any],
        paths: Sequence[Path],
        fits: Callable[[Any], bool],
    ) -> list[Any]:
        stamps = self.stamps(paths)
        names = [f"{kind}:{path.absolute()}" for path in paths]
        found = [self._cache.get(n, s.state) for n, s in zip(names, stamps, strict=True)]
        unknown = [place for place, fact in enumerate(found) if not fits(fact)]
        with ThreadPoolExecutor(_THREADS) as pool:
            facts = pool.map(lambda place: read(paths[place]), unknown)
            for place, fact in zip(unknown, facts, strict=True):
                found[place] = fact
                if has_settled(stamps[place]):
                    self._cache.put(names[place], stamps[place].state, fact)
        return found

    def finish(self) -> None:
        """Remembers what was read, where the cache folder can be written, and forgets the rest."""
        self._cache.save()
        self._stamps.clear()


def _tupled(field: Any) -> Any:  # noqa: ANN401  # what JSON can hold
    return tuple(field) if isinstance(field, list) else field


def _is_header(fact: object) -> bool:
    """Whether it is what a `Header` is kept as; a cache is a file like any other."""
    fields = list(map(_tupled, fact)) if isinstance(fact, list | tuple) else []
    return len(fields) == len(_OF_HEADER) and all(map(matches, fields, _OF_HEADER))


def _is_text(fact: object) -> bool:
    return isinstance(fact, str)


def _stamps_of(paths: Sequence[Path]) -> list[FileStamp]:
    return [stamp_of(path) for path in paths]


def _ends(path: Path) -> str:
    with _opened(path) as file:
        begin = file.read(_END)
        file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
        return hashlib.sha256(begin + file.read(_END)).hexdigest()


def _digest(path: Path) -> str:
    with _opened(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with opened(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read ({why(error)})") from None


def _replace(path: Path, content: bytes) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)
    try:
        os.fchmod(descriptor, 0o644)  # colleagues may read it, too
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
