"""Files that are written whole or not at all, and clear errors when a disk is full."""

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from uda.utilities.errors import WriteError

PARTIAL = ".partial"
_LONGEST = 200  # bytes of a name that is still followed by others: a file system takes 255
# What file systems answer that cannot synchronize such a file, or let nobody open a folder for it.
_NO_FSYNC = (
    errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES,
    errno.EPERM, errno.EISDIR,
)  # fmt: skip


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write the new content of `path`: `path` has either the old content or all of the
    new one, whenever the process or the machine dies, and also where several processes write it at
    once: the last one counts. `keep`: where the old content is kept.

    A pipe or a device, such as /dev/stdout, is written as it is. Raises WriteError, with the old
    file in place, when it cannot be written.
    """
    with clear_write_errors(path):
        if _is_stream(path):
            with _stream(path) as file:
                yield file
            return
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        temporary = beginning(path)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                synchronize(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):  # the first error says more
                temporary.unlink()
            raise
        synchronize_folder(path.parent)


def write_text_whole(path: Path, text: str) -> None:
    """Replaces `path` by a file of `text` in UTF-8; bytes of file names that are no text become
    escapes. Raises WriteError, with the old file in place, when it cannot be written."""
    with replacing(path) as file:
        file.write(text.encode("utf-8", "backslashreplace"))


def beginning(path: Path) -> Path:
    """A name beside `path` that nothing else has, for what is not whole yet; see
    `remove_partial`."""
    name = path.name
    if len(os.fsencode(name)) > _LONGEST:
        name = ""  # a cut might leave half a character
    return path.with_name(f"{name}.{secrets.token_hex(4)}{PARTIAL}")


def move_whole(file: Path, path: Path) -> None:
    """Gives a file that is complete its name `path`, once its content is on the disk."""
    with file.open("rb") as opened:
        synchronize(opened.fileno())
    file.replace(path)
    synchronize_folder(path.parent)


def synchronize(descriptor: int) -> None:
    """Waits until a file's content is on the disk, where its file system knows how to."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FSYNC:
            raise


def synchronize_folder(folder: Path) -> None:
    """The same for the names in a folder: a new one, too, must survive a power cut."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:  # one may write into a folder without reading it
        return
    try:
        synchronize(descriptor)
    finally:
        os.close(descriptor)


def _is_stream(path: Path) -> bool:
    """Whether `path` is a pipe, a device, or one of the files that a process has open."""
    try:
        kind = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    opened = os.path.realpath(path.parent).startswith(("/proc/", "/dev/fd"))
    return not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)) or opened or path.parent == Path("/dev")


@contextmanager
def _stream(path: Path) -> Iterator[BinaryIO]:
    # A pipe that nobody reads would be waited for without an end.
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as file:
        yield file


@contextmanager
def clear_write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError raised inside into a WriteError that names `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save raises a RuntimeError of its own while it handles the system's.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise WriteError(
            f"{path} cannot be written ({cause.strerror or cause}; {_room(path)}): free some space "
            "or choose a writable folder, then repeat the command (a run: with --resume); what was "
            "saved before is intact"
        ) from error


def remove_partial(folder: Path) -> None:
    """Removes the files that a killed process had begun to write into `folder`, which no other
    process may be writing now.

    A folder called so stays: it is another command's, which removes it itself when it starts over.
    """
    for path in folder.glob(f"*{PARTIAL}"):
        if path.is_dir() and not path.is_symlink():
            continue
        with clear_write_errors(path):
            path.unlink(missing_ok=True)


def _room(path: Path) -> str:
    """How much space is free where `path` would be."""
    try:
        existing = next(folder for folder in path.absolute().parents if folder.exists())
        free = shutil.disk_usage(existing).free
    except (OSError, StopIteration):  # the current folder, say, has been removed
        return "free space unknown"
    return f"{free / 2**20:.0f} MiB free"
