"""The command that scores a folder of label maps."""

import json
import runpy
import sys
from pathlib import Path

import pytest

from factories import write_png
from label_folders import random_ids, raw_folders
from tiny_runs import REPOSITORY


class Shell:
    """scripts/score_folder.py in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._patch = patch
        self._capsys = capsys

    def run(self, *arguments: str | Path) -> str:
        """What is printed; warnings go to `errors`."""
        self._patch.setattr(sys, "argv", ["score_folder.py", *map(str, arguments)])
        self._capsys.readouterr()
        runpy.run_path(str(REPOSITORY / "scripts/score_folder.py"), run_name="__main__")
        out, self.errors = self._capsys.readouterr()
        return out

    def refused(self, *arguments: str | Path) -> str:
        """The one line that the command ends with, status 2."""
        with pytest.raises(SystemExit) as end:
            self.run(*arguments)
        assert end.value.code == 2
        out, error = self._capsys.readouterr()
        assert (out, error.count("\n")) == ("", 1)
        return error


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


def test_command(tmp_path: Path, shell: Shell) -> None:
    found, labels = raw_folders(tmp_path)
    target = tmp_path / "scores.json"
    lines = shell.run(
        found, labels, "--ids", "raw", "--sets", "miou16_subset", "miou13_subset", "--boundary",
        "--json", target,
    ).splitlines()  # fmt: skip
    assert shell.errors == ""
    assert lines[:5] == [
        f"predictions: {found}",
        f"labels: {labels}",
        "images: 4",
        "ids: raw",
        "protocol: labels at stored resolution",
    ]
    assert [line.split(":")[0] for line in lines[5:10]] == [
        "no class", "sets miou16_subset", "sets miou13_subset", "boundary iou",
        "boundary iou per_class",
    ]  # fmt: skip
    assert [line[:4] for line in lines[10:]] == ["===>"] * 20
    written = json.loads(target.read_text())
    assert lines[-1] == f"===> mIoU: {round(written['miou'], 2)}"
    assert set(written["sets"]) == {"miou16_subset", "miou13_subset"}
    assert "within 0.005 of" in written["boundary_iou"]["definition"]
    same = shell.run(found, labels, "--ids", "raw", "--sets", "miou16_subset", "miou13_subset",
                     "--boundary", "0.005", "--format", "json")  # fmt: skip
    assert json.loads(same) == written


def test_command_warns_of_predictions_without_labels(tmp_path: Path, shell: Shell) -> None:
    found, labels = raw_folders(tmp_path)
    stray = write_png(found / "aachen_999999_000019.png", random_ids(0, 19))
    for name in ("csv", "markdown"):
        shell.run(found, labels, "--ids", "raw", "--format", name)
        assert shell.errors == (
            f"warning: 1 predictions have no label file and are not scored, the first is {stray}\n"
        )


def test_command_refuses(tmp_path: Path, shell: Shell) -> None:
    found, labels = raw_folders(tmp_path)
    both = (found, labels)
    for arguments, message in (
        (
            both,
            "is not a train id; allowed: 0..18, 255 for no class; these are raw ids: give --ids r",
        ),
        ((*both, "--sets", "miou16_restricted"), "miou16_restricted is computed from a network"),
        ((*both, "--sets", "miou17"), "no set of classes 'miou17'"),
        ((*both, "--ids", "raw", "--boundary", "3"), "a boundary ratio of 3"),
        ((*both, "--json", tmp_path / "no" / "s.json"), "give a file in a folder that exists"),
        ((labels / "none", labels), "cannot be listed"),
    ):
        assert message in shell.refused(*arguments)
