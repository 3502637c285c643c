"""What a run is resumed from: files of earlier versions, no file, files that cannot be read."""

import errno
import shutil
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tiny_runs import CPU, assert_same, interrupt, tiny_preset
from uda.checkpoints.snapshots import read, save
from uda.experiment import Experiment
from uda.training.loop import train
from uda.utilities.errors import InputError


def experiment_of(toy_root: Path) -> Experiment:
    experiment = tiny_preset("toy_class_mix", toy_root, steps=4)
    experiment.train.resume_every = experiment.train.snapshot_every = 1
    return experiment


@pytest.fixture(scope="module")
def interrupted(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run after 3 of 4 steps. Only copy it."""
    folder = tmp_path_factory.mktemp("runs") / "interrupted"
    interrupt(experiment_of(toy_root), folder, at=3)
    return folder


@pytest.fixture(scope="module")
def finished(interrupted: Path, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:  # noqa: ANN401
    """The last snapshot of that run."""
    folder = Path(shutil.copytree(interrupted, tmp_path_factory.mktemp("runs") / "run"))
    return resumed(toy_root, folder)


def resumed(toy_root: Path, folder: Path) -> dict[str, Any]:
    train(experiment_of(toy_root), folder, preset="tiny", device=CPU, resume=True)
    return read(folder / "GTA5_4.pth")


@pytest.fixture
def folder(interrupted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def without_defaults(config: Any, plain: Any) -> Any:  # noqa: ANN401
    """`plain` as a version would have written it in which no field with a default existed."""
    if isinstance(config, dict):
        return {name: without_defaults(config[name], value) for name, value in plain.items()}
    if not is_dataclass(config):
        return plain
    kept = {name: value for name, value in plain.items() if name == "type"}
    for field in fields(config):
        value, factory = getattr(config, field.name), field.default_factory
        if value != (field.default if factory is MISSING else factory()):
            kept[field.name] = without_defaults(value, plain[field.name])
    return kept


def test_fields_that_a_file_lacks_count_as_their_defaults(
    folder: Path, toy_root: Path, finished: dict[str, Any]
) -> None:
    values = read(folder / "resume.pth")
    stripped = without_defaults(experiment_of(toy_root), values["experiment"])
    assert stripped["model"].pop("type") == "DeepLabV3PlusConfig"  # once the only network
    for part in ("model", "train", "evaluation", "data"):
        assert stripped[part].keys() < values["experiment"][part].keys()
    mix = stripped["objectives"]["class_mix"]
    assert mix.keys() < values["experiment"]["objectives"]["class_mix"].keys()
    save(values | {"experiment": stripped}, folder / "resume.pth")
    assert_same(resumed(toy_root, folder), finished)


def test_fields_that_a_file_lacks_and_the_run_has_otherwise_are_refused(
    folder: Path, toy_root: Path
) -> None:
    values = read(folder / "resume.pth")
    del values["experiment"]["objectives"]["class_mix"]["start_step"]
    del values["experiment"]["model"]["backbone_width"]
    save(values, folder / "resume.pth")
    with pytest.raises(InputError, match=r"other values of model\.backbone_width, object"):
        resumed(toy_root, folder)


def test_a_run_killed_before_its_first_resume_file_starts_over(
    folder: Path, toy_root: Path, finished: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("resume.pth", "resume.previous.pth", "GTA5_2.pth", "GTA5_3.pth"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"first resume\.pth: add --resume to start it over"):
        train(experiment_of(toy_root), folder, preset="tiny", device=CPU)
    other = experiment_of(toy_root)
    other.train.seed = 5
    with pytest.raises(
        InputError, match=r"GTA5_1\.pth was written with other values of train.seed"
    ):
        train(other, folder, preset="tiny", device=CPU, resume=True)
    assert_same(resumed(toy_root, folder), finished)
    assert "resume.pth does not exist: the run starts over from step 0" in capsys.readouterr().out


def failing(times: int, function: Any) -> Any:  # noqa: ANN401
    """`function` of a path, on a disk that does not give resume.pth so many times."""
    left = [times]

    def call(path: Path, *arguments: Any, **options: Any) -> Any:  # noqa: ANN401
        if path.name == "resume.pth" and left[0]:
            left[0] -= 1
            raise OSError(errno.EIO, "Input/output error")
        return function(path, *arguments, **options)

    return call


def test_a_passing_reading_error_costs_nothing(
    folder: Path, toy_root: Path, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest = (folder / "resume.pth").read_bytes()
    monkeypatch.setattr(torch, "load", failing(1, torch.load))
    assert_same(resumed(toy_root, folder), finished)
    assert (folder / "resume.previous.pth").read_bytes() == newest


def test_a_lasting_reading_error_replaces_nothing(
    folder: Path, toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in folder.glob("resume*.pth")}
    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", failing(9, torch.load))
        patch.setattr(Path, "open", failing(9, Path.open))
        with pytest.raises(
            InputError, match=r"resume\.pth cannot be read \(Input/output error\), "
        ):
            resumed(toy_root, folder)
    assert {path: path.read_bytes() for path in folder.glob("resume*.pth")} == before
