"""Files that are written whole or not at all, and what to do when a disk takes no more."""

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
    """A file to write what `path` will hold: it holds the old content or all of the new one,
    whenever the process or the machine dies. With `keep`, the old content stays there.

    Raises WriteError, with the old file in place, when the disk does not take it.
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
    """What the system says of a disk inside becomes a WriteError that names `path`."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save raises a RuntimeError of its own while it handles the system's.
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        raise WriteError(
            f"{path} cannot be written ({cause.strerror or cause}; {_room(path)}): make room, or "
            "take a folder that can be written, and give the command again, for a run with "
            "--resume; what was saved before is whole"
        ) from error


def remove_partial(folder: Path) -> None:
    """Removes what a process that was killed had begun to write into `folder`."""
    for path in folder.glob(f"*{_PARTIAL}"):
        with clear_write_errors(path):
            path.unlink()


def _room(path: Path) -> str:
    """How much room there is where `path` would be."""
    existing = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        free = shutil.disk_usage(existing).free
    except OSError:
        return "room unknown"
    return f"{free / 2**20:.0f} MiB free"
