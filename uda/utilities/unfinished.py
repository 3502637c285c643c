"""Folders that are whole or not there: their files go to a sibling that is renamed at the end."""

import shutil
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from uda.utilities.atomic_files import clear_write_errors, synchronize_folder
from uda.utilities.distributed import any_of, is_main, wait_for_all
from uda.utilities.errors import InputError, require
from uda.utilities.locks import LOCK, OWNER, sole_writer


class UnfinishedFolder:
    """The sibling of a folder, as long as it is being written, by one process and its ranks only.

    Use as a context manager: leaving it before `finish` removes what was written. What a killed
    process has left is removed by the next one.
    """

    def __init__(
        self, folder: Path, *, check: Callable[[], object], another: str = "--output DIR"
    ) -> None:
        """`check`: raises InputError when `folder` must not be written or replaced. It is called at
        once, and again when no other process writes the folder; `another`: the option that chooses
        another folder."""
        check()
        self._check, self._another = check, another
        if folder.name in ("", "..") or folder.is_symlink():  # `.` has its name in the one above
            folder = folder.resolve()
        require(folder.name != "", f"{folder} is not a folder to write: choose {another}")
        self._folder = folder
        self._old = folder.with_name(f".{folder.name}.uda-old")
        self.path = folder.with_name(f".{folder.name}.uda-partial")  # where files are written

    def __enter__(self) -> Self:
        self._held, self._finished = ExitStack(), False
        refusal = ""
        if is_main():
            try:
                self._begin()
            except InputError as error:
                refusal = str(error)
        if refusal := any_of(refusal):
            self._held.close()
            raise InputError(refusal)
        return self

    def _begin(self) -> None:
        self._held.enter_context(sole_writer(self.path, another=self._another))
        with clear_write_errors(self._folder):
            if self._old.exists():
                if self._folder.exists():
                    shutil.rmtree(self._old)
                else:  # its writer was killed between two renames
                    self._old.rename(self._folder)
            self._check()
            for left in self.path.iterdir():
                if left.is_dir() and not left.is_symlink():
                    shutil.rmtree(left)
                elif left.name not in (LOCK, OWNER):
                    left.unlink()

    def finish(self) -> None:
        """Gives the folder its name in place of what has it, once all processes are here."""
        wait_for_all()
        if is_main():
            with clear_write_errors(self._folder):
                self._take_place()
        self._finished = True
        wait_for_all()

    def _take_place(self) -> None:
        if self._folder.exists():
            self._folder.rename(self._old)
        try:
            self.path.rename(self._folder)
        except OSError:
            if self._old.exists():
                self._old.rename(self._folder)
            raise
        for name in (LOCK, OWNER):  # until now, they have kept others away
            (self._folder / name).unlink(missing_ok=True)
        shutil.rmtree(self._old, ignore_errors=True)
        synchronize_folder(self._folder.parent)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if is_main() and not self._finished:
            shutil.rmtree(self.path, ignore_errors=True)
        self._held.close()
