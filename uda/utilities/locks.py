"""One process at a time writes into a folder."""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TextIO

from uda.utilities.atomic_files import clear_write_errors
from uda.utilities.errors import InputError

LOCK = ".lock"
OWNER = ".lock.owner"  # exists while a process writes, where the file system has no locks
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP)


@contextmanager
def sole_writer(folder: Path, *, another: str = "--run NAME") -> Iterator[str]:
    """Holds the lock of `folder` and yields a remark, mostly empty, on how it is locked.

    The system releases the lock however the process ends; the file `.lock` stays. It is a record
    lock, not flock: loader processes, which may outlive a killed run by seconds, do not inherit it.
    On a file system without locks, the file `.lock.owner` takes its place. A killed process leaves
    it behind; the next one on the same machine notices and removes it. Raises InputError when
    another process holds the lock; `another`: the option that chooses another folder.
    """
    path = folder / LOCK
    with clear_write_errors(path):
        file = path.open("a+")
    with file:
        if _lock(file, folder, another):
            yield ""
            return
    owner = folder / OWNER
    _own(owner, folder, another)
    try:
        yield f"the file system of {folder} has no locks (tried .lock): {owner.name} replaces it"
    finally:
        owner.unlink(missing_ok=True)


def is_written(folder: Path) -> bool:
    """Whether another process holds the lock of `folder` now. Nothing is locked by asking; but a
    process must not ask of a folder whose lock it holds itself: closing the file would release it.
    """
    owner = folder / OWNER
    try:
        with (folder / LOCK).open("rb") as file:
            asked = struct.pack("hhqqi", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            answer = struct.unpack("hhqqi", fcntl.fcntl(file, fcntl.F_GETLK, asked))
            if answer[0] != fcntl.F_UNLCK:
                return True
    except (OSError, struct.error):  # no such file; no locks here
        pass
    try:
        fields = owner.read_text().splitlines()[1].split()
        return fields[1] == socket.gethostname() and _runs(int(fields[0]), fields[2])
    except (OSError, ValueError, IndexError):
        return False


def _lock(file: TextIO, folder: Path, another: str) -> bool:
    """Takes the lock and writes down its owner; False where the file system has no locks."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise _in_use(folder, file.read(), another) from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return False
        raise InputError(f"{folder / LOCK} cannot be locked ({error.strerror})") from None
    with clear_write_errors(folder / LOCK):
        file.truncate(0)
        file.write(_this_process() + "\n")
        file.flush()
    return True


def _own(path: Path, folder: Path, another: str) -> None:
    """Creates the owner file, which fails while another process has it."""
    while True:
        try:
            with clear_write_errors(path):
                descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except InputError as error:
            if not isinstance(error.__cause__, FileExistsError):
                raise
            _remove_if_stale(path, folder, another)
            continue
        with os.fdopen(descriptor, "w") as file, clear_write_errors(path):
            file.write(f"{_this_process()}\n{os.getpid()} {socket.gethostname()} {_started()}\n")
        return


def _remove_if_stale(path: Path, folder: Path, another: str) -> None:
    """Removes an owner file whose process has ended; InputError while that cannot be told."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return
    fields = text.splitlines()[1].split() if text.count("\n") == 2 else []
    own = len(fields) == 3 and fields[0].isdigit() and fields[1] == socket.gethostname()
    if not own or _runs(int(fields[0]), fields[2]):
        another += f"; if it has ended, remove {path}"
        raise _in_use(folder, text.partition("\n")[0], another)
    # Another process may have removed it and made its own since: only the stale one may go.
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return
    if aside.read_text() != text:
        os.link(aside, path)
    aside.unlink()


def _runs(process: int, started: str) -> bool:
    """Whether a process of this machine still runs, and is not another one of the same number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return _started(process) == started


def _started(process: int | str = "self") -> str:
    """When a process was started, in ticks since the machine was; "unknown" outside Linux."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return "unknown"
    return stat.rpartition(")")[2].split()[19]  # the name before it may hold anything


def _this_process() -> str:
    now = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    return f"process {os.getpid()} on {socket.gethostname()} since {now}"


def _in_use(folder: Path, owner: str, another: str) -> InputError:
    return InputError(
        f"{folder} is being written by another process ({owner.strip() or 'unknown'}): wait until "
        f"it ends, stop it, or choose another folder with {another}"
    )
