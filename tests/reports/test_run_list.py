"""uda runs: state, step, score and supervision of every run, whatever is in its folder."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from shells import Trained
from uda.commands.main import main


@pytest.fixture
def runs(trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the run study/mine of three steps."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained.snapshot.parent, tmp_path / "snapshots/study/mine")
    return tmp_path / "snapshots"


def listed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, list[str]]:
    capsys.readouterr()
    assert main(["runs", *arguments]) == 0
    return {line.split()[0]: line.split()[1:] for line in capsys.readouterr().out.splitlines()}


def test_runs_are_listed_with_what_they_are(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot: dict[str, Any] = torch.load(runs / "study/mine/GTA5_3.pth", weights_only=True)
    miou = f"{snapshot['scores']['miou']:.2f}"
    shutil.copytree(runs / "study/mine", runs / "killed")
    values = snapshot["experiment"]
    values["train"]["steps"] = 500
    torch.save(snapshot | {"supervision": "none\x1b[2J"}, runs / "killed/GTA5_3.pth")
    with (runs / "killed/metrics.jsonl").open("a") as log:
        log.write('{"step": 7, "lr": 0.1}\n{"step": 8, "l')
    found = listed(capsys, "--json", "list.json")
    assert found["run"] == ["state", "step", "of", "mIoU", "supervision", "preset", "seed"]
    assert found["study/mine"] == ["finished", "3", "3", miou, "none", "toy_class_mix", "0"]
    assert found["killed"] == [
        "stopped", "7", "500", miou, r"none\x1b[2J", "toy_class_mix", "0",
    ]  # fmt: skip
    assert list(found) == ["run", "-" * 10, "killed", "study/mine"]
    assert [run["name"] for run in json.loads(Path("list.json").read_text())] == list(found)[2:]


def test_damaged_and_foreign_files_do_not_end_the_list(
    runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = b'{"preset": "p", "supervision": "none", "miou": 41.5}'
    contents = {
        "a/GTA5_3.pth": b"damaged", "b/metrics.jsonl": b'[\n{"step": "x"}\n', "c/.lock": b"",
        "d/scores.json": scores, "e/scores.json": b"[", "f/photo.jpg": b"",
    }  # fmt: skip
    for name, content in contents.items():
        (runs / name).parent.mkdir()
        (runs / name).write_bytes(content)
    torch.save({"format": "uda-snapshot-1", "experiment": []}, runs / "c/resume.pth")
    found = listed(capsys)
    assert found["d"] == ["finished", "-", "-", "41.50", "none", "p", "-"]
    for name in "abc":
        assert found[name] == ["stopped", *"------"]
    assert "f" not in found


def test_no_run_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["runs"])
    assert "snapshots is not a folder: runs are below snapshots/" in capsys.readouterr().err
    (tmp_path / "snapshots").mkdir()
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "there is no run below snapshots\n"
