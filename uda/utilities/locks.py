"""One process at a time writes into a folder."""

import errno
import fcntl
import os
import socket
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TextIO

from uda.utilities.atomic_files import PARTIAL, clear_write_errors
from uda.utilities.errors import InputError

LOCK = ".lock"
OWNER = ".lock.owner"  # exists while a process writes, where the file system has no locks
_NO_LOCKS = (
    errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOTTY,
)  # fmt: skip
_LONGEST = 1000  # characters of what is read of such a file
_WRITTEN_WITHIN = 0.5  # seconds: an owner file that is created is written at once
_held = set[tuple[int, int]]()  # devices and inodes of the locks of this process


@contextmanager
def sole_writer(
    folder: Path,
    *,
    another: str = "--run NAME",
    result: Path | None = None,
    leave: bool = True,
) -> Iterator[str]:
    """Makes `folder` unless it exists, holds its lock and yields a remark, mostly empty, on how it
    is locked.

    The system releases the lock however the process ends; `leave`: whether the file `.lock` stays.
    It is a record lock, not flock: loader processes, which may outlive a killed run by seconds, do
    not inherit it. On a file system without locks, the file `.lock.owner` takes its place. A killed
    process leaves it behind; the next one on the same machine notices and removes it. Raises
    InputError when another process, or this one, holds the lock; `another`: the option that chooses
    another folder; `result`: what is said to be written, if it is not the folder itself.
    """
    with _locked(folder, _Said(result or folder, another)) as (file, has_locks):
        status = os.fstat(file.fileno())
        key = (status.st_dev, status.st_ino)
        _held.add(key)
        try:
            if has_locks:
                yield ""
                return
            text = _own(folder, _Said(result or folder, another))
            try:
                yield f"the file system of {folder} has no locks (tried .lock): {OWNER} replaces it"
            finally:
                owner = folder / OWNER
                with suppress(OSError):  # the folder may have been renamed, and be another's now
                    if _text_of(owner) == text:
                        owner.unlink()
        finally:
            if not leave:
                with suppress(OSError):  # while it is held: who waits for it sees that it is gone
                    if os.path.samestat((folder / LOCK).stat(), status):
                        (folder / LOCK).unlink()
            _held.discard(key)


@contextmanager
def _locked(folder: Path, said: "_Said") -> Iterator[tuple[TextIO, bool]]:
    """The file `.lock`, and whether it is locked: not where the file system has no locks."""
    path = folder / LOCK
    while True:
        with clear_write_errors(path):
            folder.mkdir(parents=True, exist_ok=True)
            file = path.open("a+", errors="replace")
        with file:
            # Closing another descriptor of a file that this process has locked would unlock it.
            if (os.fstat(file.fileno()).st_dev, os.fstat(file.fileno()).st_ino) in _held:
                raise said.in_use(_this_process())
            has_locks = _lock(file, folder, said)
            try:
                same = os.path.samestat(path.stat(), os.fstat(file.fileno()))
            except OSError:
                same = False
            if not same:  # whoever held the lock has renamed or removed the folder meanwhile
                continue
            if has_locks:
                _write_owner(file, folder)
            yield file, has_locks
            return


def is_written(folder: Path) -> bool:
    """Whether another process holds the lock of `folder` now. Nothing is locked by asking; but a
    process must not ask of a folder whose lock it holds itself: closing the file would release it.
    """
    with suppress(OSError, struct.error), (folder / LOCK).open("rb") as file:  # no file; no locks
        kind = list(_FLOCK).index("type")
        asked = struct.pack("".join(_FLOCK.values()), *_of_whole_file())
        answer = struct.unpack("".join(_FLOCK.values()), fcntl.fcntl(file, fcntl.F_GETLK, asked))
        if answer[kind] != fcntl.F_UNLCK:
            return True
    try:
        fields = _text_of(folder / OWNER).splitlines()[1].split()
        return fields[1] == socket.gethostname() and _runs(int(fields[0]), fields[2])
    except (OSError, ValueError, IndexError):
        return False


# The fields of the system's `struct flock` and their formats, in their order.
_FLOCK = (
    {"type": "h", "whence": "h", "start": "q", "length": "q", "process": "i"}
    if sys.platform == "linux"
    else {"start": "q", "length": "q", "process": "i", "type": "h", "whence": "h"}
)


def _of_whole_file() -> list[int]:
    values = {"type": fcntl.F_WRLCK, "whence": os.SEEK_SET}
    return [values.get(name, 0) for name in _FLOCK]


def holds_nothing(folder: Path) -> bool:
    """Whether `folder` is not there, or holds nothing but what a lock and a killed process leave:
    another may take it."""
    return not folder.exists() or all(
        path.name in (LOCK, OWNER) or (path.name.endswith(PARTIAL) and path.is_file())
        for path in folder.iterdir()
    )


def _lock(file: TextIO, folder: Path, said: "_Said") -> bool:
    """Takes the lock; False where the file system has no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise said.in_use(file.read(_LONGEST)) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise InputError(f"{folder / LOCK} cannot be locked ({error.strerror})") from None
    return True


def _write_owner(file: TextIO, folder: Path) -> None:
    """Writes down who holds the lock."""
    with clear_write_errors(folder / LOCK):
        file.truncate(0)
        file.write(_this_process() + "\n")
        file.flush()


def _own(folder: Path, said: "_Said") -> str:
    """Creates the owner file, which fails while another process has it; its text."""
    path = folder / OWNER
    text = f"{_this_process()}\n{os.getpid()} {socket.gethostname()} {_started()}\n"
    while True:
        try:
            with clear_write_errors(path):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except InputError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            _remove_if_stale(path, said)
            continue
        with os.fdopen(descriptor, "w") as file, clear_write_errors(path):
            file.write(text)
        return text


def _text_of(owner: Path) -> str:
    with owner.open(errors="replace") as file:
        return file.read(_LONGEST)


def _remove_if_stale(path: Path, said: "_Said") -> None:
    """Removes an owner file whose process has ended; InputError while that cannot be told."""
    try:
        text = _text_of(path)
        if not text:  # being written; or its process was killed right before that
            time.sleep(_WRITTEN_WITHIN)
            text = _text_of(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): remove it") from None
    fields = text.splitlines()[1].split() if text.count("\n") == 2 else []
    own = len(fields) == 3 and fields[0].isdecimal() and fields[1] == socket.gethostname()
    if text and (not own or _runs(int(fields[0]), fields[2])):
        raise said.in_use(text.partition("\n")[0], f"; if it has ended, remove {path}")
    # Another process may have removed it and made its own since: only the stale one may go.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    with clear_write_errors(path):
        try:
            path.rename(aside)
        except FileNotFoundError:
            return
        if _text_of(aside) != text:
            aside.rename(path)
            return
        aside.unlink()


def _runs(process: int, started: str) -> bool:
    """Whether a process of this machine still runs, and is not another one of the same number."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    return _started(process) == started


def _started(process: int | str = "self") -> str:
    """When a process was started, in ticks since the machine was; "unknown" outside Linux."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
        return stat.rpartition(")")[2].split()[19]  # the name before it may hold anything
    except (OSError, IndexError):
        return "unknown"


def _this_process() -> str:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


class _Said(NamedTuple):
    """What a refusal speaks of."""

    result: Path
    another: str

    def in_use(self, owner: str, addition: str = "") -> InputError:
        return InputError(
            f"{self.result} is being written by another process ({owner.strip() or 'unknown'}): "
            f"wait until it ends, stop it, or choose another folder with {self.another}{addition}"
        )
