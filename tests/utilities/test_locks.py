"""One writer in a folder, also on file systems without locks."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from uda.utilities.errors import InputError
from uda.utilities.locks import OWNER, is_written, sole_writer

ERRORS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP]


@pytest.fixture(params=ERRORS)
def without_locks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(request.param, os.strerror(request.param))

    monkeypatch.setattr(fcntl, "lockf", refuse)


def leave_behind(folder: Path, *, process: int, host: str, started: str) -> None:
    (folder / OWNER).write_text(f"process {process} on {host}\n{process} {host} {started}\n")


def ended_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_file_takes_the_place_of_a_lock(without_locks: None, tmp_path: Path) -> None:
    with sole_writer(tmp_path) as remark:
        assert "has no locks" in remark
        with (
            pytest.raises(InputError, match=f"another process \\(process {os.getpid()} on"),
            sole_writer(tmp_path),
        ):
            pass
        assert (tmp_path / OWNER).exists()
    assert not (tmp_path / OWNER).exists()
    with sole_writer(tmp_path):
        pass


def test_what_a_killed_process_left_is_removed(without_locks: None, tmp_path: Path) -> None:
    host = socket.gethostname()
    leave_behind(tmp_path, process=ended_process(), host=host, started="1")
    with sole_writer(tmp_path):
        assert str(os.getpid()) in (tmp_path / OWNER).read_text()
    leave_behind(tmp_path, process=os.getpid(), host=host, started="1")  # the number is used again
    with sole_writer(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


@pytest.mark.parametrize("text", ["", "damaged", "one\ntwo\n", "one\ntwo three four five\n"])
def test_an_owner_that_cannot_be_checked_keeps_the_folder(
    without_locks: None, tmp_path: Path, text: str
) -> None:
    leave_behind(tmp_path, process=ended_process(), host="elsewhere", started="1")
    if text:
        (tmp_path / OWNER).write_text(text)
    with (
        pytest.raises(InputError, match=f"if it has ended, remove .*{OWNER}"),
        sole_writer(tmp_path),
    ):
        pass
    assert (tmp_path / OWNER).exists()


def test_a_lock_of_the_file_system_needs_no_remark(tmp_path: Path) -> None:
    with sole_writer(tmp_path) as remark:
        assert remark == ""
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_other_errors_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(fcntl, "lockf", refuse)
    with (
        pytest.raises(InputError, match="cannot be locked \\(Input/output error"),
        sole_writer(tmp_path),
    ):
        pass


def test_whether_another_process_writes_is_seen_without_a_lock(tmp_path: Path) -> None:
    assert not is_written(tmp_path)
    program = (
        "import sys; from pathlib import Path; from uda.utilities.locks import sole_writer\n"
        f"with sole_writer(Path({str(tmp_path)!r})): print('locked', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    assert is_written(tmp_path)
    process.communicate()
    assert not is_written(tmp_path)


def test_an_owner_file_says_so_too(without_locks: None, tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        assert is_written(tmp_path)
    leave_behind(tmp_path, process=ended_process(), host=socket.gethostname(), started="1")
    assert not is_written(tmp_path)
    (tmp_path / OWNER).write_text("odd")
    assert not is_written(tmp_path)
