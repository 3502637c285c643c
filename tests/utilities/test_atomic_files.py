"""A file is the old one or the new one, whatever the disk answers and whoever else writes it."""

import errno
import os
from pathlib import Path

import pytest

from uda.utilities.atomic_files import remove_partial, replacing, write_text_whole
from uda.utilities.errors import WriteError

DISK = [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS]


def failing(number: int) -> object:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


@pytest.mark.parametrize("number", DISK)
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_an_error_of_the_disk_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    path = tmp_path / "scores.json"
    path.write_text("old")
    with monkeypatch.context() as patched:
        if call == "fsync":
            patched.setattr(os, "fsync", failing(number))
        else:
            patched.setattr(Path, call, failing(number))
        with pytest.raises(WriteError, match=r"scores\.json cannot be written .*free some space"):
            write_text_whole(path, "new")
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(path.name, "old")]


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES])
def test_a_file_system_that_cannot_synchronize_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(os, "fsync", failing(number))
    write_text_whole(tmp_path / "file", "new")
    monkeypatch.setattr(os, "open", failing(errno.EACCES))  # of the folder, which is not readable
    write_text_whole(tmp_path / "file", "newer")
    assert (tmp_path / "file").read_text() == "newer"


def test_two_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as first, replacing(path) as second:
        first.write(b"first " * 1000)
        second.write(b"second")
    assert path.read_bytes() == b"first " * 1000  # the last one to end
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["n" * 255, "ö" * 127, os.fsdecode(b"\xff" * 255), "a\nb", " "])
def test_every_name_that_a_folder_can_hold_can_be_written(tmp_path: Path, name: str) -> None:
    write_text_whole(tmp_path / name, "text")
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(
    "place", ["n" * 256, "missing/file", "file/below", "folder", "n" * 5000, "loop"]
)
def test_places_that_cannot_be_written_are_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("old")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").mkdir()
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(WriteError, match="cannot be written"):
        write_text_whole(tmp_path / place, "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_device_or_pipe_is_written_as_it_is(tmp_path: Path) -> None:
    read, write = os.pipe()
    for path in (Path(os.devnull), Path(f"/dev/fd/{write}"), Path(f"/proc/self/fd/{write}")):
        if path.exists():  # not every system has all
            write_text_whole(path, "text")
    assert Path(os.devnull).is_char_device()
    os.close(write)
    assert os.read(read, 100).startswith(b"text")
    os.close(read)
    os.mkfifo(tmp_path / "pipe")  # which nobody reads
    with pytest.raises(WriteError, match="pipe cannot be written"):
        write_text_whole(tmp_path / "pipe", "text")


def test_what_a_killed_process_began_is_removed(tmp_path: Path) -> None:
    for name in ("resume.pth.partial", "resume.pth.0a1b.partial", ".0a1b.partial", "resume.pth"):
        (tmp_path / name).touch()
    (tmp_path / "labels.partial").mkdir()
    remove_partial(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.partial", "resume.pth"]


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(WriteError, match="free space unknown"):
        write_text_whole(Path("scores.json"), "text")
