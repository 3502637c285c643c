"""Folders and large files that are whole or not there, and that one process at a time writes."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from uda.utilities.atomic_files import clear_write_errors, synchronize_folder
from uda.utilities.distributed import any_of, is_main, wait_for_all
from uda.utilities.errors import InputError, require
from uda.utilities.locks import LOCK, OWNER, sole_writer
from uda.utilities.reading import real

_OLD = "old"  # in the workplace: the folder that is being replaced, between two renames


def _place_of(path: Path) -> Path:
    return path.parent / f".{path.name}.uda-partial"


@contextmanager
def workplace(path: Path, *, another: str = "--output DIR") -> Iterator[Path]:
    """A folder beside `path` for what is to become `path`, which no other process has meanwhile.

    It is removed in the end; what a killed process has left in it is removed in the beginning.
    Raises InputError when another process has it; `another`: the option that chooses another path.
    """
    require(path.name not in ("", ".."), f"{path} is not a name to write to: choose {another}")
    place = _place_of(path)
    with sole_writer(place, another=another, result=path):
        try:
            with clear_write_errors(path):
                if (place / _OLD).exists() and not path.exists():
                    (place / _OLD).rename(path)
                for left in place.iterdir():
                    if left.is_dir() and not left.is_symlink():
                        shutil.rmtree(left)
                    elif left.name not in (LOCK, OWNER):
                        left.unlink()
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


class UnfinishedFolder:
    """A folder that is being written, by the ranks of one run only, and has no name yet.

    Use as a context manager: leaving it before `finish` removes what was written.
    """

    def __init__(
        self, folder: Path, *, check: Callable[[], object], another: str = "--output DIR"
    ) -> None:
        """`check`: raises InputError when `folder` must not be written or replaced. It is called at
        once, and again when no other process writes the folder; `another`: as for `workplace`."""
        check()
        self._check, self._another = check, another
        if folder.name in ("", "..") or folder.is_symlink():  # `.` has its name in the one above
            folder = real(folder)
        self._folder = folder
        self._place = _place_of(folder)
        self.path = self._place / "new"  # where files are written

    def __enter__(self) -> Self:
        self._held = ExitStack()
        refusal = ""
        if is_main():
            try:
                self._held.enter_context(workplace(self._folder, another=self._another))
                self._check()
                with clear_write_errors(self._folder):
                    self.path.mkdir()
            except InputError as error:
                refusal = str(error)
        if refusal := any_of(refusal):
            self._held.close()
            raise InputError(refusal)
        return self

    def finish(self) -> None:
        """Gives the folder its name in place of what has it, once all processes are here."""
        wait_for_all()
        if is_main():
            with clear_write_errors(self._folder):
                self._take_place()
        wait_for_all()

    def _take_place(self) -> None:
        old = self._place / _OLD
        if self._folder.exists():
            self._folder.rename(old)
        try:
            self.path.rename(self._folder)
        except OSError:
            if old.exists():
                old.rename(self._folder)
            raise
        synchronize_folder(self._folder.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._held.close()
