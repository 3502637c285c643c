"""A run is resumed with the files that it was made with, or says which have changed."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from interruptions import before_step, experiment_of, run_to_end, sending
from tiny_runs import CPU, tiny_preset
from uda.checkpoints.snapshots import read
from uda.data import used_files as module
from uda.data.used_files import StoredFiles, UsedFiles
from uda.experiment import Experiment
from uda.training.loop import train
from uda.training.signals import Stopped
from uda.utilities.errors import InputError


@pytest.fixture
def root(toy_root: Path, tmp_path: Path) -> Path:
    """A copy of the toy city that may be changed."""
    return Path(shutil.copytree(toy_root, tmp_path / "data"))


def stopped(experiment: Experiment, folder: Path) -> None:
    with before_step(2, sending(signal.SIGTERM)), pytest.raises(Stopped):
        run_to_end(experiment, folder)


def test_files_that_changed_are_named(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = experiment_of(root)
    stopped(experiment, tmp_path / "run")
    images = sorted(root.glob("GTA5/images/*.png"))
    images[1].write_bytes(images[0].read_bytes())
    images[3].write_bytes(images[0].read_bytes())
    kept = read(tmp_path / "run/resume.pth")["files"]
    with pytest.raises(InputError) as refusal:
        run_to_end(experiment, tmp_path / "run", resume=True)
    assert f"{images[1]}, {images[3]} have changed: restore the files, or add --data-ch" in str(
        refusal.value
    )
    capsys.readouterr()
    train(experiment, tmp_path / "run", preset="tiny", device=CPU, resume=True, data_changed=True)
    out = capsys.readouterr().out
    assert f"remark: since {tmp_path}/run/resume.pth was written, {images[1]}, {images[3]}" in out
    assert "data changed     at step 3, as --data-changed has allowed" in out
    values = read(tmp_path / "run/resume.pth")
    assert values["data_changed_at"] == (3,)
    assert not torch.equal(values["files"]["sizes"], kept["sizes"])
    run_to_end(experiment, tmp_path / "run", resume=True)  # they are known now


@pytest.mark.slow
def test_a_copy_on_another_disk_and_a_touch_are_no_change(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(experiment_of(root), tmp_path / "run")
    other = Path(shutil.copytree(root, tmp_path / "other", copy_function=shutil.copyfile))
    shutil.rmtree(root)
    for path in other.rglob("*.png"):
        os.utime(path, (1, 1))
    capsys.readouterr()
    experiment = tiny_preset("toy_class_mix", other)
    own = experiment_of(other)
    own.data.root = experiment.data.root
    run_to_end(own, tmp_path / "run", resume=True)
    assert "files have other times but the same content: taken as copies" in capsys.readouterr().out


def test_an_older_file_says_nothing_of_files(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("uda.training.run_plan.used_files", lambda *_: UsedFiles((), None))  # type: ignore[arg-type]
        stopped(experiment_of(root), tmp_path / "run")
    assert "files" not in read(tmp_path / "run/resume.pth")
    run_to_end(experiment_of(root), tmp_path / "run", resume=True)
    assert "resume.pth does not say of which files: changes would not be" in capsys.readouterr().out


def states(sizes: list[int], times: list[int], ends: list[int]) -> UsedFiles:
    paths = tuple(Path(f"{number}.png") for number in range(len(sizes)))
    compared = torch.tensor(ends, dtype=torch.uint8)[:, None]
    stored = StoredFiles(sizes=torch.tensor(sizes), times=torch.tensor(times), compared=compared)
    return UsedFiles(paths, stored)


def test_of_many_files_some_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five here two, the first and the last."""
    monkeypatch.setattr(module, "_MOST_COMPARED", 2)
    before = states([9] * 5, [1] * 5, [1, 2]).stored
    same = [9] * 5
    assert states(same, [1] * 5, [1, 2]).since(before) == ("", "")
    copied = states(same, [2] * 5, [1, 2]).since(before)
    assert copied == (
        "",
        "5 files have other times but the same content (2 of them were compared): taken as copies",
    )
    assert states(same, [2] * 5, [1, 3]).since(before).refusal == (
        "4.png has changed; 1.png, 2.png, 3.png have another time and the same size, and may have "
        "changed"
    )
    touched = states(same, [1, 2, 2, 1, 1], [1, 2]).since(before)
    assert touched.refusal == (
        "1.png, 2.png have another time and the same size, and may have changed"
    )
    assert states([9, 9, 8, 9, 9], [1] * 5, [1, 2]).since(before).refusal == "2.png has changed"
    assert states([9] * 4, [1] * 4, [1, 2]).since(before).refusal == "5 files then, 4 now"
