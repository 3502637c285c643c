"""Texts of --help and --list: made once, printed from memory until the library changes."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tiny_runs import REPOSITORY
from uda.commands import remembered
from uda.commands.remembered import with_memory


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of one file, and a cache of its own."""
    folder = tmp_path / "uda/commands"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("x = 1")
    monkeypatch.setattr(remembered, "_PACKAGE", tmp_path / "uda")
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))
    return folder / "train.py"


def printing(calls: list[str], text: str = "usage\n", status: int = 0) -> Callable[[], int]:
    def main() -> int:
        calls.append(text)
        print(text, end="")
        return status

    return main


def ask(main: Callable[[], int], *given: str, prog: str = "uda train") -> int:
    return with_memory(main, "train", list(given), prog)


def test_a_text_is_made_once_until_the_library_changes(
    library: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for _ in range(3):
        assert ask(printing(calls), "--help") == 0
    assert (capsys.readouterr().out, len(calls)) == ("usage\n" * 3, 1)
    ask(printing(calls, "list\n"), "--list")
    ask(printing(calls), "--help", prog="train_uda.py")
    assert len(calls) == 3  # other texts
    library.write_text("x = 22")
    assert ask(printing(calls, "new\n"), "--help") == 0
    assert ask(printing(calls, "not called\n"), "--help") == 0
    assert capsys.readouterr().out.endswith("new\nnew\n")
    os.utime(library, ns=(1, 1))
    ask(printing(calls), "--help")
    monkeypatch.setenv("COLUMNS", "40")
    ask(printing(calls), "--help")
    assert len(calls) == 6


def test_only_texts_are_remembered(library: Path, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    for given in (["--preset", "x"], ["--list", "--preset", "x"], ["--help", "-h"], []):
        for _ in range(2):
            ask(printing(calls), *given)
    assert len(calls) == 8
    for _ in range(2):
        assert ask(printing(calls, "half a te", status=2), "--list") == 2
    assert len(calls) == 10


def test_a_parser_ends_the_program_itself(
    library: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ending() -> int:
        print("usage")
        sys.exit(0)

    assert (ask(ending, "--help"), ask(ending, "--help")) == (0, 0)

    def failing() -> int:
        print("said before")
        sys.exit(2)

    with pytest.raises(SystemExit) as end:
        ask(failing, "-h")
    assert end.value.code == 2
    assert capsys.readouterr().out == "usage\nusage\nsaid before\n"


@pytest.mark.parametrize("damage", [b"", b"{", b'{"key": "x", "text": "wrong"}', b"\xff" * 9])
def test_damaged_memory_and_folders_that_cannot_be_written(
    library: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: bytes
) -> None:
    calls: list[str] = []
    ask(printing(calls), "--help")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(damage)
    ask(printing(calls), "--help")
    assert len(calls) == 2
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b"usage", b"usagf"))  # a flipped bit
    ask(printing(calls), "--help")
    assert len(calls) == 3
    file.unlink()
    file.mkdir()
    ask(printing(calls), "--help")
    assert capsys.readouterr().out == "usage\n" * 4


def test_help_of_the_root_commands_imports_no_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it is remembered: a process that could not import it prints the same text."""
    import subprocess

    blocked = (
        "import sys; sys.modules['torch'] = None; sys.modules['numpy'] = None\n"
        "sys.argv = ['train_uda.py', '--help']\n"
        "from uda.commands.program import run\nsys.exit(run('train'))"
    )
    plain = blocked.partition("\n")[2].replace("sys.argv", "import sys; sys.argv", 1)
    environment = os.environ | {"UDA_CACHE": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    texts = [
        subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
            check=True,
        ).stdout
        for program in (plain, blocked)
    ]  # fmt: skip
    assert texts[0] == texts[1]
    assert "--preset NAME" in texts[0]
