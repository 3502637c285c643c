"""Folders that appear whole, and that one process at a time writes."""

import errno
import fcntl
import os
import shutil
from pathlib import Path

import pytest

from uda.utilities.errors import InputError, WriteError
from uda.utilities.locks import OWNER
from uda.utilities.unfinished import UnfinishedFolder, workplace


def unfinished(folder: Path) -> UnfinishedFolder:
    return UnfinishedFolder(folder, check=lambda: None)


def write(folder: Path, text: str) -> None:
    with unfinished(folder) as writer:
        (writer.path / "file").write_text(text)
        writer.finish()


@pytest.fixture(params=[None, errno.ENOLCK])
def locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    if request.param:
        monkeypatch.setattr(fcntl, "lockf", refuse)


def test_the_second_writer_is_refused_and_the_first_is_not_disturbed(
    locks: None, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    with unfinished(folder) as first:
        (first.path / "file").write_text("first")
        with (
            pytest.raises(InputError, match=r"out is being written by another process \(process"),
            unfinished(folder),
        ):
            pass
        first.finish()
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert list(tmp_path.iterdir()) == [folder]
    write(folder, "second")
    assert (folder / "file").read_text() == "second"
    assert list(tmp_path.iterdir()) == [folder]


def test_what_killed_writers_left_is_no_obstacle(locks: None, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    place = tmp_path / ".out.uda-partial"
    (place / "new" / "sub").mkdir(parents=True)
    (place / OWNER).touch()  # killed before its one line was written
    write(folder, "new")
    assert [path.name for path in folder.rglob("*")] == ["file"]
    # Killed between the renames of the old folder and of the new one.
    place.mkdir()
    folder.rename(place / "old")
    with workplace(folder):
        assert (folder / "file").read_text() == "new"
    assert list(tmp_path.iterdir()) == [folder]


def test_an_unfinished_one_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "out"
    write(folder, "old")
    with unfinished(folder) as writer:
        (writer.path / "file").write_text("new")
    assert (folder / "file").read_text() == "old"
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(WriteError, match="out cannot be written"):
        write(folder, "new")
    assert (folder / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_place_that_is_taken_away_meanwhile_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place = tmp_path / "out", tmp_path / ".out.uda-partial"
    lock, times = fcntl.lockf, iter([True])

    def slow(*arguments: object) -> None:
        if next(times, False):  # the former writer ends between our open and our lock
            shutil.rmtree(place)
        lock(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(fcntl, "lockf", slow)
    write(folder, "new")
    assert (folder / "file").read_text() == "new"


def test_the_current_folder_can_be_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write(Path(), "new")
    assert (tmp_path / "here" / "file").read_text() == "new"
    with pytest.raises(InputError, match="is not a name to write to"), unfinished(Path("/")):
        pass
