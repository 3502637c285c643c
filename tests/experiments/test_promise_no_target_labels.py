"""Promise 1: no label of the target's training images reaches training, or is even opened."""

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from factories import describe_city
from tiny_runs import (
    CPU,
    SUPERVISED,
    UNSUPERVISED,
    assert_same,
    covering,
    metrics,
    slow_unless,
    tiny_preset,
)
from uda.checkpoints.snapshots import read
from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.training.loop import train
from uda.utilities.config_tree import to_plain
from uda.utilities.errors import InputError

_EVENTS = ("open", "os.listdir", "os.scandir", "os.chdir")
_watchers: list[list[Path]] = []


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _watchers and event in _EVENTS and isinstance(arguments[0], str | bytes | os.PathLike):
        path = Path(os.fsdecode(arguments[0])).absolute()
        for found in _watchers:
            found.append(path)


sys.addaudithook(_audit)  # cannot be taken away again; idle while nobody watches


@contextmanager
def opened_files() -> Iterator[list[Path]]:
    """Every file and folder that this process opens inside the block."""
    found: list[Path] = []
    _watchers.append(found)
    try:
        yield found
    finally:
        _watchers.remove(found)


def city_without_target_labels(toy_root: Path, root: Path) -> Path:
    """The toy city, its images and validation labels shared, without a gtFine/train."""
    for name in ("GTA5", "CycleGTA5"):
        root.mkdir(exist_ok=True)
        (root / name).symlink_to(toy_root / name)
    (root / "Cityscapes/gtFine").mkdir(parents=True)
    (root / "Cityscapes/leftImg8bit").symlink_to(toy_root / "Cityscapes/leftImg8bit")
    (root / "Cityscapes/gtFine/val").symlink_to(toy_root / "Cityscapes/gtFine/val")
    return root


def preset(name: str, toy_root: Path) -> Experiment:
    """Three steps, all objectives in the last two of them, an evaluation before the last step and
    one after it."""
    experiment = tiny_preset(name, toy_root, steps=3)
    experiment.evaluation.every = 2
    return experiment


def kinds(name: str) -> frozenset[str]:
    """The preset's objectives, and which options of its data are used."""
    experiment = load_preset(name)
    data = to_plain(experiment.data)
    return frozenset(
        {type(objective).__name__ for objective in experiment.objectives.values()}
        | {option for option, value in data.items() if value}
        | {f"target.{option}" for option, value in (data["target"] or {}).items() if value}
    )


# Half of the presets that together have every objective and every option; the others are slow.
FIRST = covering({name: kinds(name) for name in UNSUPERVISED})[::2]
FIRST_SUPERVISED = covering({name: kinds(name) for name in SUPERVISED})


@pytest.mark.parametrize("name", [slow_unless(name, FIRST) for name in UNSUPERVISED])
def test_same_bits_without_the_targets_training_labels(
    name: str, toy_root: Path, tmp_path: Path
) -> None:
    experiment = preset(name, toy_root)
    with opened_files() as found:
        scores = train(experiment, tmp_path / "with", preset=name, device=CPU)
    labels = toy_root / "Cityscapes/gtFine"
    assert any(path.is_relative_to(labels / "val") for path in found), "the hook sees what is read"
    assert not [path for path in found if path.is_relative_to(labels / "train")]
    if experiment.data.target is not None:
        images = toy_root / "Cityscapes/leftImg8bit/train"
        assert any(path.is_relative_to(images) for path in found)
    criteria = [line for line in metrics(tmp_path / "with") if "label_free/mean_entropy" in line]
    assert len(criteria) == (0 if experiment.data.target is None else 2)

    experiment.data.root = str(city_without_target_labels(toy_root, tmp_path / "root"))
    without = train(experiment, tmp_path / "without", preset=name, device=CPU)
    assert without.confusion == scores.confusion
    assert metrics(tmp_path / "without") == metrics(tmp_path / "with")
    states = [read(tmp_path / run / "resume.pth") for run in ("with", "without")]
    for state in states:
        state["experiment"]["data"].pop("root")
        assert state["step"] == 3
        assert "ground truth" not in state["supervision"]
    assert_same(*states)


@pytest.mark.slow
def test_same_bits_without_them_in_loader_processes(toy_root: Path, tmp_path: Path) -> None:
    experiment = preset("toy_class_mix", toy_root)
    experiment.data.workers = 2
    train(experiment, tmp_path / "with", preset="toy_class_mix", device=CPU)
    experiment.data.root = str(city_without_target_labels(toy_root, tmp_path / "root"))
    train(experiment, tmp_path / "without", preset="toy_class_mix", device=CPU)
    students = [read(tmp_path / run / "resume.pth")["student"] for run in ("with", "without")]
    assert_same(*students)


@pytest.mark.parametrize("name", [slow_unless(name, FIRST_SUPERVISED) for name in SUPERVISED])
def test_presets_that_use_them_say_so(
    name: str, toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = preset(name, toy_root)
    with opened_files() as found:
        train(experiment, tmp_path / "run", preset=name, device=CPU)
    labels = toy_root / "Cityscapes/gtFine/train"
    assert any(path.is_relative_to(labels) and path.suffix == ".png" for path in found)
    domains = (experiment.data.source, experiment.data.target)
    # The source's, where both are of the target: those are the labeled ones.
    first = next(d.first for d in domains if d is not None and d.datasets == ("cityscapes",))
    supervision = f"ground truth ({first or 6} images)"
    (snapshot,) = (tmp_path / "run").glob("*_3.pth")
    assert read(snapshot)["supervision"] == supervision
    assert f"supervision      {supervision} (of the target)" in capsys.readouterr().out
    experiment.data.root = str(city_without_target_labels(toy_root, tmp_path / "root"))
    with pytest.raises(InputError, match="gtFine"):
        train(experiment, tmp_path / "without", preset=name, device=CPU)


def test_unreadable_labels_are_no_hindrance(toy_root: Path, tmp_path: Path) -> None:
    """Files that cannot be decoded prove the same for a user who may read everything."""
    root = tmp_path / "root"
    city_without_target_labels(toy_root, root)
    shutil.copytree(toy_root / "Cityscapes/gtFine/train", root / "Cityscapes/gtFine/train")
    for path in (root / "Cityscapes/gtFine/train").rglob("*.png"):
        path.write_bytes(b"no picture")
    experiment = tiny_preset("toy_class_mix", root, steps=2)
    train(experiment, tmp_path / "run", preset="toy_class_mix", device=CPU)


@pytest.mark.slow
def test_a_target_described_by_a_file_keeps_its_labels_to_itself(
    toy_root: Path, tmp_path: Path
) -> None:
    """Patterns of labels are neither expanded nor listed for images without labels."""
    _, target = describe_city(tmp_path, toy_root)
    experiment = preset("toy_class_mix", toy_root)
    assert experiment.data.target is not None
    experiment.data.target.datasets = (str(target),)
    experiment.evaluation.dataset = str(target)
    with opened_files() as found:
        train(experiment, tmp_path / "run", preset="toy_class_mix", device=CPU)
    labels = toy_root / "Cityscapes/gtFine"
    assert any(path.is_relative_to(labels / "val") for path in found), "the hook sees what is read"
    assert not [path for path in found if path.is_relative_to(labels / "train")]
