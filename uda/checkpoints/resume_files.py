"""Which of a run's files to resume from: the newest that is whole."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from uda.utilities.distributed import is_main, wait_for_all
from uda.utilities.errors import InputError

_BLOCK = 2**22  # bytes
_ASIDE = ".damaged"

T = TypeVar("T")


def newest_readable(paths: Sequence[Path], read: Callable[[Path], T]) -> tuple[Path, T]:
    """The first of `paths`, the newest first, that `read` can read, and what it returned.

    One that is damaged for sure is renamed: the next save does not replace a good file with it, and
    nothing is lost. Raises the InputError of `read` when none is whole, and InputError, with
    nothing changed on disk, when the disk does not give a file's bytes. All ranks must call it.
    """
    path, *others = paths
    try:
        return path, read(path)
    except InputError:
        pass  # an error of the disk may have passed
    try:
        return path, read(path)
    except InputError as error:
        check_readable(path)
        if not others:
            raise
        found = newest_readable(others, read)
        wait_for_all()  # every rank has read it
        if is_main():
            aside = path.with_name(path.name + _ASIDE)
            print(f"{error}; continuing from {found[0]}; the other is now {aside}")
            path.replace(aside)
        return found


def check_readable(path: Path) -> None:
    """Raises InputError when the disk does not give the file's bytes: it may be undamaged."""
    try:
        with path.open("rb") as file:
            while file.read(_BLOCK):
                pass
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}), so nothing is resumed and nothing "
            "replaced: fix that and give the command again"
        ) from error
