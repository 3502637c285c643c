"""Files that are written whole or not at all, and clear errors when a disk is full."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from uda.utilities.errors import WriteError

_PARTIAL = ".partial"


@contextmanager
def replacing(path: Path, *, keep: Path | None = None) -> Iterator[BinaryIO]:
    """A file to write the new content of `path`: `path` has either the old content or all of the
    new one, whenever the process or the machine dies. `keep`: where the old content is kept.

    Raises WriteError, with the old file in place, when it cannot be written.
    """
    temporary = path.with_name(path.name + _PARTIAL)
    with clear_write_errors(path):
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if keep is not None and path.exists():
                path.replace(keep)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the new name, too, must survive a power cut
        finally:
            os.close(folder)


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
    """Removes the files that a killed process had begun to write into `folder`.

    A folder called so, such as `pseudo_labels.partial`, stays: another command may be writing it,
    and removes it itself when it starts over.
    """
    for path in folder.glob(f"*{_PARTIAL}"):
        if path.is_dir() and not path.is_symlink():
            continue
        with clear_write_errors(path):
            path.unlink()


def _room(path: Path) -> str:
    """How much space is free where `path` would be."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return "free space unknown"
    return f"{free / 2**20:.0f} MiB free"
