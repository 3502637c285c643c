"""Nothing is lost: full disks, damaged files, records that a kill has cut off."""

import json
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from interruptions import (
    before_step,
    cut_short,
    experiment_of,
    files,
    run_to_end,
    stopped_after,
)
from tiny_runs import (
    assert_same,
)
from uda.checkpoints.snapshots import read
from uda.training.tracking import Tracker
from uda.utilities.errors import InputError, WriteError


@contextmanager
def room_for(size: int) -> Iterator[Callable[[], None]]:
    """What it gives makes the system refuse, until the end, all beyond `size` bytes of a file, as a
    full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.slow
@pytest.mark.parametrize(("room", "first"), [(600_000, r"GTA5_4\.pth"), (100_000, "tensorboard")])
def test_a_full_disk_costs_the_steps_since_the_last_save(
    room: int, first: str, toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = tmp_path / "run"
    with (
        room_for(room) as disk_fills,
        before_step(3, disk_fills),
        pytest.raises(WriteError, match=rf"{first} cannot be written \(File too large; \d+ MiB f"),
    ):
        run_to_end(experiment_of(toy_root), folder)
    assert read(folder / "resume.pth")["step"] == read(folder / "GTA5_2.pth")["step"] == 2
    assert not list(folder.glob("*.partial"))
    run_to_end(experiment_of(toy_root), folder, resume=True)
    assert_same(files(folder), undisturbed)


def test_a_full_disk_is_reported_when_records_do_not_fit(tmp_path: Path) -> None:
    """/dev/full is a disk without room."""
    with Tracker(tmp_path, name="run", steps=9, first_step=0, batch_size=2) as tracker:
        (tmp_path / "metrics.jsonl").unlink(missing_ok=True)
        (tmp_path / "metrics.jsonl").symlink_to("/dev/full")
        with pytest.raises(WriteError, match=r"metrics\.jsonl cannot be written \(No space left"):
            tracker.log(1, {"loss/a/main": torch.tensor(1.0)}, lr=0.5)


def test_a_folder_that_cannot_be_written_is_refused_before_the_first_step(
    toy_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/run cannot be written \(Not a directory;"):
        run_to_end(experiment_of(toy_root), tmp_path / "file/run")


def test_records_of_a_run_survive_a_resume_that_dies_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are rewritten without the lines beyond the resumed step: whole, or not at all."""
    lines = "".join(json.dumps({"step": step}) + "\n" for step in range(9))
    (tmp_path / "metrics.jsonl").write_text(lines)

    def dies(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        Tracker(tmp_path, name="run", steps=9, first_step=4, batch_size=2)
    assert (tmp_path / "metrics.jsonl").read_text() == lines


def test_a_damaged_resume_file_costs_the_steps_since_the_one_before(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = stopped_after(5, experiment_of(toy_root), tmp_path / "run")
    for name in ("GTA5_6.pth.partial", "resume.pth.partial"):
        (folder / name).write_bytes(b"half of a fi")
    (folder / "pseudo_labels.partial").mkdir()  # of a killed pseudo_label.py, or of one that runs
    cut_short(folder / "resume.pth")
    capsys.readouterr()
    run_to_end(experiment_of(toy_root), folder, resume=True)
    out = capsys.readouterr().out
    assert f"{folder}/resume.pth cannot be read" in out
    assert f"continuing from {folder}/resume.previous.pth" in out
    assert (folder / "resume.pth.damaged").exists()  # nothing that could be rescued is lost
    assert "steps            4 to 6, on cpu" in out
    assert_same(files(folder), undisturbed)
    assert [path.name for path in folder.glob("*.partial")] == ["pseudo_labels.partial"]


def test_a_kill_between_two_names_leaves_the_previous_file(toy_root: Path, tmp_path: Path) -> None:
    folder = stopped_after(5, experiment_of(toy_root), tmp_path / "run")
    (folder / "resume.pth").unlink()
    with pytest.raises(InputError, match="holds a run already: add --resume"):
        run_to_end(experiment_of(toy_root), folder)
    cut_short(folder / "resume.previous.pth")
    with pytest.raises(InputError, match=r"resume\.previous\.pth cannot be read"):
        run_to_end(experiment_of(toy_root), folder, resume=True)


@pytest.mark.slow
def test_a_run_goes_on_from_a_copy(
    toy_root: Path, tmp_path: Path, undisturbed: dict[str, Any]
) -> None:
    folder = stopped_after(3, experiment_of(toy_root), tmp_path / "run")
    (tmp_path / "kept").mkdir()
    shutil.copy(folder / "resume.pth", tmp_path / "kept")
    for copy in (tmp_path / "kept", tmp_path / "kept/resume.pth"):
        with pytest.raises(InputError, match="holds a run of its own: --resume without a path"):
            run_to_end(experiment_of(toy_root), folder, resume=copy)
    with pytest.raises(
        InputError, match=r"GTA5_2\.pth is a snapshot to evaluate, without the stat"
    ):
        run_to_end(experiment_of(toy_root), folder, resume=folder / "GTA5_2.pth")
    run_to_end(experiment_of(toy_root), tmp_path / "other", resume=tmp_path / "kept")
    other = files(tmp_path / "other")
    for name in ("GTA5_6.pth", "resume.pth"):
        assert_same(other[name], undisturbed[name])
    run_to_end(experiment_of(toy_root), folder, resume=folder / "resume.previous.pth")
    assert_same(files(folder), undisturbed)
