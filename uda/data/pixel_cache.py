"""Pixels that were decoded once, kept on disk for later epochs and other runs.

An entry is a file of its own, named by a digest of what it was made from: the path of the image or
label file, its size, time and inode, and the settings. It is written under another name and then
renamed, so several processes and runs may share a folder. A damaged entry is found by its checksum
when a process first reads it, and made anew. Entries are read, not mapped into memory: a mapped
file that a disk cannot read any more kills the process.

At its bound the folder takes no more, so that what is there stays useful in passes over data that
are larger; entries that were of no use for a week make room first. Each process that writes counts
what the others have added whenever it has added a 128th itself: by that much the bound may be
exceeded.
"""

import hashlib
import json
import os
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image
from torch.utils.data import get_worker_info

from uda.data.config import DataConfig
from uda.data.files import MAX_PIXELS
from uda.data.known_files import FileStamp, has_settled, stamp_of
from uda.utilities.atomic_files import PARTIAL, beginning
from uda.utilities.distributed import is_main
from uda.utilities.errors import require
from uda.utilities.reading import expanded

Size = tuple[int, int]  # (height, width)
Made = tuple[Image.Image, Size]  # a picture, and the size that its file has
Pixels = npt.NDArray[np.uint8]  # (H, W) or (H, W, 3)

_FORMAT = "uda-pixels-1"  # also the name of the folder of all entries
_HEAD = struct.Struct("<12s6I")  # format; stored and held height and width; channels, checksum
_CHECKED_HEAD = struct.Struct(f"<{_HEAD.size}sI")  # and its own checksum
_DAY = 24 * 60 * 60  # seconds
_UNUSED = 7 * _DAY  # then an entry may make room for others
_FREE = 2**31  # bytes of the disk that are left to others, such as a run's own snapshots
_COUNTED = 128  # a process counts again when it has added this part of the bound
_DIGITS = set("0123456789abcdef")


class Entry(NamedTuple):
    """What is kept of a picture."""

    path: Path
    stored: Size  # of the picture in its own file
    held: Size  # of the pixels that are kept
    channels: int  # 1: (H, W)

    def first_rows(self, rows: int) -> Pixels:
        """The first `rows` rows; OSError when they cannot be read."""
        shape = (min(rows, self.held[0]), self.held[1], self.channels)[: 2 + (self.channels > 1)]
        pixels = np.empty(shape, np.uint8)
        with self.path.open("rb", buffering=0) as file:
            file.seek(_CHECKED_HEAD.size)
            if file.readinto(pixels) != pixels.nbytes:  # type: ignore[arg-type]
                raise OSError("it is too short")
        return pixels


class PixelCache:
    """A folder of such entries, of at most `gib` GiB."""

    def __init__(self, folder: Path, gib: float) -> None:
        """Raises InputError when the folder cannot be written."""
        self.folder = folder / _FORMAT
        self._bound = int(gib * 2**30)
        self._checked: set[str] = set()  # entries whose checksum this process has compared
        self._bytes = -1  # of the folder when they were counted, and what was added since
        self._added = 0  # bytes since then
        self._stopped = False  # whether no more is added
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            reason = error.strerror
        else:
            reason = "" if os.access(self.folder, os.W_OK | os.X_OK) else "permission denied"
        require(
            not reason,
            f"data.cache is {folder}, which cannot be written ({reason}): choose a folder on a "
            "disk with room, or leave it out, with --set data.cache=",
        )

    @classmethod
    def of(cls, data: DataConfig) -> "PixelCache | None":
        """The cache that a preset names, if it does."""
        if not data.cache:
            return None
        return cls(expanded(Path(data.cache), "data.cache"), data.cache_gib)

    def find(self, key: str) -> Entry | None:
        """The entry of a key if there is one and it is not damaged."""
        path = self._path(key)
        try:
            entry, checksum = _read_head(path)
            if key not in self._checked:
                pixels = entry.first_rows(entry.held[0])
                if zlib.crc32(pixels.data) != checksum:
                    raise ValueError("its pixels do not have their checksum")
                self._checked.add(key)
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            with suppress(OSError):
                path.unlink()
            return None
        return entry

    def keep(self, key: str, pixels: Pixels, stored: Size) -> None:
        """Writes an entry, where there is room. Whatever prevents it is said once, and is no error:
        what is not kept is decoded again."""
        if self._stopped:
            return
        size = _CHECKED_HEAD.size + pixels.nbytes
        try:
            reason = self._no_room(size)
            if not reason:
                self._write(self._path(key), np.ascontiguousarray(pixels), stored)
                self._bytes += size
                self._added += size
        except OSError as error:
            reason = f"it cannot be written: {error.strerror or error}"
        if reason:
            self._stopped = True
            worker = get_worker_info()
            if is_main() and (worker is None or worker.id == 0):  # the others will find the same
                print(
                    f"warning: no more images are added to the cache {self.folder} ({reason}); the "
                    "others are decoded each time",
                    file=sys.stderr,
                    flush=True,
                )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _write(self, path: Path, pixels: Pixels, stored: Size) -> None:
        channels = pixels.shape[2] if pixels.ndim == 3 else 1
        name, checksum = _FORMAT.encode(), zlib.crc32(pixels.data)
        head = _HEAD.pack(name, *stored, *pixels.shape[:2], channels, checksum)
        path.parent.mkdir(exist_ok=True)
        temporary = beginning(path)
        try:
            with temporary.open("xb", buffering=0) as file:
                # Not synchronized: after a power cut the checksum tells.
                for part in (_CHECKED_HEAD.pack(head, zlib.crc32(head)), pixels.data):
                    if file.write(part) != memoryview(part).nbytes:
                        raise OSError("no space left on the disk")
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def _no_room(self, size: int) -> str:
        """Why so many bytes more cannot be added; "" if they can."""
        if self._bytes < 0 or self._added > self._bound // _COUNTED:
            self._count()
        if self._bytes + size > self._bound:
            self._count(room_for=size)
        if self._bytes + size > self._bound:
            return f"it has the {self._bound / 2**30:g} GiB of data.cache_gib"
        status = os.statvfs(self.folder)
        if status.f_bavail * status.f_frsize < size + _FREE:
            return f"less than {_FREE / 2**30:g} GiB of its disk are free"
        return ""

    def _count(self, room_for: int | None = None) -> None:
        """Counts the bytes of the folder; removes what killed processes have left and, to make
        room, what was of no use for a week, the oldest first."""
        now, total, unused = time.time(), 0, []
        for entry in _files_in(self.folder):
            with suppress(OSError):  # another process has removed it
                found = entry.stat(follow_symlinks=False)
                if entry.name.endswith(PARTIAL):
                    if found.st_mtime < now - _DAY:
                        Path(entry).unlink()
                    continue
                total += found.st_size
                if found.st_mtime < now - _UNUSED:
                    unused.append((found.st_mtime, found.st_size, entry.path))
        if room_for is not None:
            for _, size, path in sorted(unused):
                if total + room_for <= self._bound:
                    break
                with suppress(OSError):
                    Path(path).unlink()
                    total -= size
        self._bytes, self._added = total, 0


class HeldPicture:
    """A picture whose size is known and whose pixels are read when asked for, as `StoredImage`."""

    def __init__(self, size: Size, make: Callable[[], Made], source: Entry | Image.Image) -> None:
        self.size = size  # (height, width) in its own file
        self.held = source.held if isinstance(source, Entry) else (source.height, source.width)
        self._make, self._source = make, source

    def picture(self, rows: int | None = None) -> Image.Image:
        """The picture, or at least its first `rows` rows, of the size that is held."""
        if isinstance(self._source, Entry):
            try:
                return Image.fromarray(self._source.first_rows(rows or self.held[0]))
            except OSError:  # it was there a moment ago
                self._source, _ = self._make()
        return self._source


def held_picture(
    cache: PixelCache, path: Path, settings: list[object], make: Callable[[], Made]
) -> HeldPicture:
    """What `make` makes of the file `path` by these settings, which can be written as JSON: an
    8-bit picture, and the size that is stored in the file. InputError as `stamp_of` and `make`."""
    stamp = stamp_of(path)
    key = key_of(path, stamp, settings)
    settled = has_settled(stamp)  # else the file might change without another time
    entry = cache.find(key) if settled else None
    if entry is not None:
        return HeldPicture(entry.stored, make, entry)
    picture, size = make()
    if settled:
        cache.keep(key, np.asarray(picture), size)
    return HeldPicture(size, make, picture)


def key_of(path: Path, stamp: FileStamp, settings: list[object]) -> str:
    """The name of an entry: of a file as it is now, and settings."""
    made_from = [_FORMAT, PIL.__version__, str(path.absolute()), stamp.state, settings]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()


def _read_head(path: Path) -> tuple[Entry, int]:
    """An entry and the checksum of its pixels; its time becomes that of its last use, but for a
    day. Raises ValueError for one that is damaged, OSError for one that cannot be read."""
    with path.open("rb", buffering=0) as file:
        content, found = file.read(_CHECKED_HEAD.size), os.fstat(file.fileno())
    if found.st_mtime < time.time() - _DAY:
        with suppress(OSError):  # of another user
            os.utime(path)
    if len(content) != _CHECKED_HEAD.size:
        raise ValueError("it is too short")
    head, checksum = _CHECKED_HEAD.unpack(content)
    name, top, left, height, width, channels, of_pixels = _HEAD.unpack(head)
    if checksum != zlib.crc32(head) or name != _FORMAT.encode():
        raise ValueError("its header does not have its checksum")
    if found.st_size != _CHECKED_HEAD.size + height * width * channels:
        raise ValueError("it is not as long as its header says")
    if channels not in (1, 3) or not 0 < height * width <= MAX_PIXELS:
        raise ValueError("its header says what no picture is like")
    return Entry(path, (top, left), (height, width), channels), of_pixels


def _files_in(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """The entries of a cache, and what is not whole yet; nothing else, which is not ours."""
    with suppress(OSError), os.scandir(folder) as folders:
        for below in folders:
            with suppress(OSError), os.scandir(below) as files:
                for file in files:
                    name = file.name.partition(".")[0]
                    if len(name) == 64 and set(name) <= _DIGITS:
                        yield file
