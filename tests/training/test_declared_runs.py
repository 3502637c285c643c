"""Runs that declare something out of the ordinary: an extension, a sanity check, remarks."""

from pathlib import Path

import pytest

from tiny_runs import CPU, assert_same, metrics, tiny_preset
from uda.checkpoints.snapshots import read
from uda.experiment import Experiment, TrainConfig
from uda.experiments.overrides import change
from uda.optim.teacher import TeacherConfig
from uda.training.loop import train
from uda.utilities.errors import InputError


def adapting(root: Path, *overrides: str, steps: int = 4) -> Experiment:
    experiment = tiny_preset("toy_class_mix", root, steps=steps)
    experiment.objectives["class_mix"].start_step = experiment.train.warmup_steps = 1
    experiment.evaluation.every = experiment.train.snapshot_every = 100  # at the end
    change(experiment, overrides)
    return experiment


@pytest.mark.slow
def test_an_extended_run_equals_one_that_declared_it_from_the_start(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    train(adapting(toy_root), folder, preset="p", device=CPU)
    longer = adapting(toy_root, "train.steps=6")
    with pytest.raises(InputError) as refusal:
        train(longer, folder, preset="p", device=CPU, resume=True)
    assert "is of a run of 4 steps, the preset has 6" in str(refusal.value)
    assert str(refusal.value).endswith("add --set train.extended_from=4")
    capsys.readouterr()
    declared = adapting(toy_root, "train.steps=6", "train.extended_from=4")
    train(declared, folder, preset="p", device=CPU, resume=True)
    assert "steps            4 to 6, on cpu, extended from 4" in capsys.readouterr().out
    train(declared, tmp_path / "straight", preset="p", device=CPU)
    ends = [read(path / "resume.pth") for path in (folder, tmp_path / "straight")]
    assert_same(*ends)
    assert ends[0]["experiment"]["train"]["extended_from"] == (4,)
    assert metrics(folder) == metrics(tmp_path / "straight")
    again = adapting(toy_root, "train.steps=7", "train.extended_from=4,6")
    train(again, folder, preset="p", device=CPU, resume=True)
    assert read(folder / "resume.pth")["step"] == 7


@pytest.mark.parametrize(
    "overrides",
    [
        ("train.steps=3",),
        ("train.steps=6", "train.extended_from=3"),
        ("train.steps=6", "train.extended_from=4", "train.power=0.5"),
    ],
)
def test_other_changes_are_no_extension(
    overrides: tuple[str, ...], toy_root: Path, tmp_path: Path
) -> None:
    train(adapting(toy_root), tmp_path / "run", preset="p", device=CPU)
    with pytest.raises(InputError, match=r"was written with other values of train\."):
        train(adapting(toy_root, *overrides), tmp_path / "run", preset="p", device=CPU, resume=True)


def test_up_to_its_old_end_the_schedule_is_the_old_one() -> None:
    train = TrainConfig(steps=9, batch_size=1, extended_from=(4, 6))
    assert [train.decay_steps(step) for step in range(9)] == [4] * 4 + [6] * 2 + [9] * 3
    assert [step for step in range(10) if train.is_due(step, 100)] == [0, 4, 6, 9]


@pytest.mark.parametrize("lengths", [(0,), (4, 4), (6, 4), (9,), (10,)])
def test_an_extension_ascends(lengths: tuple[int, ...]) -> None:
    train = TrainConfig(steps=9, batch_size=1, extended_from=lengths)
    with pytest.raises(InputError, match=r"train\.extended_from is \(.*; allowed: ascending num"):
        train.check("train")


def test_a_sanity_check_says_so_in_every_result(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=2)
    change(experiment, [], sanity_check=True)
    train(experiment, tmp_path / "run", preset="p", device=CPU)
    said = "ground truth (2 images); sanity check: scored on training images"
    printed = capsys.readouterr().out
    assert f"supervision      {said}" in printed
    assert f"(supervision: {said})" in printed
    assert "2 source images with labels, 2 images to evaluate" in printed
    snapshot = read(tmp_path / "run/GTA5_2.pth")
    assert snapshot["supervision"] == said
    assert snapshot["experiment"]["train"]["sanity_check"]


def test_training_images_are_not_scored_by_accident(toy_root: Path, tmp_path: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.evaluation.split = "train"
    with pytest.raises(InputError, match="on purpose, add --sanity-check"):
        train(experiment, tmp_path / "run", preset="p", device=CPU)
    # Nor with a sanity check, as long as it is the target's images that are scored.
    change(experiment, [], sanity_check=True)
    assert experiment.data.target is not None
    experiment.data.target.datasets = ("gta5",)
    with pytest.raises(InputError, match="images are both trained on and scored"):
        train(experiment, tmp_path / "run", preset="p", device=CPU)


def test_what_is_not_used_is_remarked_at_start_and_left_out_of_snapshots(
    toy_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = tiny_preset("toy_source_only", toy_root, steps=1)
    experiment.teacher = TeacherConfig()
    train(experiment, tmp_path / "run", preset="p", device=CPU, remarks=["first"])
    printed = capsys.readouterr().out
    assert "remark: first\nremark: teacher is not used, as no objective needs it\n" in printed
    snapshot = read(tmp_path / "run/GTA5_1.pth")
    assert snapshot["experiment"]["teacher"] is None
    assert snapshot["teacher"] is None
