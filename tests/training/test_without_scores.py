"""Training on labeled renders and unlabeled photographs: nothing is scored, and no label of the
target's is opened."""

import shutil
from pathlib import Path

import pytest

from shells import Shell
from tiny_runs import CPU, metrics, tiny_options, tiny_preset
from uda.checkpoints.snapshots import load
from uda.experiment import Experiment, validate
from uda.experiments.overrides import change
from uda.optim.plateau import PlateauConfig
from uda.training.loop import train
from uda.utilities.errors import InputError


@pytest.fixture
def root(toy_root: Path, tmp_path: Path) -> Path:
    """Photographs of which none has labels."""
    shutil.copytree(toy_root, tmp_path / "city")
    shutil.rmtree(tmp_path / "city/Cityscapes/gtFine")
    shutil.rmtree(tmp_path / "city/Cityscapes/leftImg8bit/val")
    return tmp_path / "city"


def unscored(root: Path, *, steps: int = 4) -> Experiment:
    experiment = tiny_preset("toy_class_mix", root, steps=steps)
    experiment.evaluation.every = 0
    experiment.train.snapshot_every = 2
    return experiment


def test_a_run_without_scores(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scores = train(unscored(root), tmp_path / "run", preset="p", device=CPU)
    assert scores.miou != scores.miou
    shown = capsys.readouterr().out
    assert "6 target images without labels, none to evaluate\n" in shown
    assert "evaluation       none: evaluation.every is 0\n" in shown
    assert "mIoU" not in shown
    snapshot = load(tmp_path / "run/GTA5_4.pth")
    assert (snapshot.scores, snapshot.supervision) == (None, "none")
    assert (tmp_path / "run/GTA5_2.pth").exists()
    assert not any("miou" in line for line in metrics(tmp_path / "run"))
    assert not (tmp_path / "run/summary.json").exists()


def test_it_learns_what_a_scored_run_learns(toy_root: Path, tmp_path: Path) -> None:
    students = []
    for every in (0, 2):
        experiment = unscored(toy_root)
        experiment.evaluation.every = every
        train(experiment, tmp_path / str(every), preset="p", device=CPU)
        students.append(load(tmp_path / f"{every}/GTA5_4.pth").student)
    assert all((students[0][name] == students[1][name]).all() for name in students[0])


def test_the_command(root: Path, shell: Shell) -> None:
    options = [*tiny_options(root), "--set", "evaluation=none"]
    options += ["--set", "objectives.class_mix.start_step=1"]
    shown = shell.run("train_uda.py", "--preset", "toy_class_mix", *options)
    assert shown.endswith("nothing was scored: evaluation.every is 0\n")
    assert "===>" not in shown


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.every=-1", "evaluation.every is -1; allowed: steps between evaluations, or 0"),
        ("evaluation.split=train", "nothing is scored, as every is 0"),
        ("evaluation.sets=miou19", "nothing is scored, as every is 0"),
    ],
)
def test_what_needs_scores_is_refused(toy_root: Path, override: str, message: str) -> None:
    experiment = unscored(toy_root)
    changed = change(experiment, [override])
    with pytest.raises(InputError, match=message):
        validate(experiment, typed=changed.typed)


def test_a_plateau_needs_scores(toy_root: Path) -> None:
    experiment = unscored(toy_root)
    experiment.train.plateau = PlateauConfig()
    with pytest.raises(InputError, match=r"evaluation\.every is 0: add --set evaluation\.every="):
        validate(experiment)
