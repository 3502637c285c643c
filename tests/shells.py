"""The commands as tests run them, and what they print."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from tiny_runs import REPOSITORY, start_process

# As the experiment log prints them.
NAMES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "light", "sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motocycle", "bicycle",
)  # fmt: skip

CLASS_MIX = ("--preset", "toy_class_mix", "--set", "objectives.class_mix.start_step=1")


def table(output: str) -> list[str]:
    """The `===>` lines, found to be exactly the log's: every class in order, then the mean."""
    lines = [line for line in output.splitlines() if line.startswith("===>")]
    assert [line.split(":")[0] for line in lines] == [*(f"===>{n}" for n in NAMES), "===> mIoU"]
    for line in lines[:-1]:
        assert re.fullmatch(r"===>\w+:\t(nan|\d+\.\d{1,2})", line), line
    assert re.fullmatch(r"===> mIoU: \d+\.\d{1,2}", lines[-1]), lines[-1]
    return lines


def process(cwd: Path, name: str, *arguments: str) -> str:
    """What the command prints in a process of its own; nothing goes to standard error."""
    out, error = start_process(cwd, name, *arguments).communicate(timeout=60)
    assert error == ""
    return out


class Shell:
    """The commands in this process, in a folder of their own."""

    def __init__(
        self, cwd: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.cwd = cwd
        self.snapshots = cwd / "snapshots"
        self._patch = patch
        self._capsys = capsys
        patch.chdir(cwd)
        patch.delenv("UDA_DATA", raising=False)

    def run(self, name: str, *arguments: str) -> str:
        """What the command prints."""
        self._patch.setattr(sys, "argv", [name, *arguments])
        self._capsys.readouterr()
        runpy.run_path(str(REPOSITORY / name), run_name="__main__")
        return self._capsys.readouterr().out

    def ended(self, name: str, *arguments: str) -> tuple[int, str]:
        """The exit status of a command, and what it prints."""
        try:
            return 0, self.run(name, *arguments)
        except SystemExit as end:
            return int(str(end.code)), self._capsys.readouterr().out

    def refused(self, name: str, *arguments: str) -> str:
        """The line that the command ends with, or one for each of several problems; status 2 and
        nothing new on disk."""
        before = self._files()
        with pytest.raises(SystemExit) as end:
            self.run(name, *arguments)
        assert end.value.code == 2
        assert self._files() == before
        error = self._capsys.readouterr().err
        assert error.startswith("error: ")
        first, *others = error.splitlines()
        assert not others or first == f"error: {len(others)} problems:"
        assert error.endswith("\n")
        return error

    def _files(self) -> dict[Path, int]:
        """When each file was written; a lock says who looked at a folder last."""
        found = (p for p in self.cwd.rglob("*") if p != self.snapshots and p.name != ".lock")
        return {p: p.stat().st_mtime_ns if p.is_file() else 0 for p in found}


class Trained:
    """A class mix run of three steps, made by the command."""

    def __init__(self, folder: Path, output: str) -> None:
        self.output = output
        self.snapshot = folder / "GTA5_3.pth"
