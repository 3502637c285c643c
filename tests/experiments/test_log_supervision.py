"""The experiment log's mistakes as tests: what a run learned from.

C2: target labels took part in "unsupervised" runs. C5b: a "student" never learned from its
pseudo-labels.
"""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from log_lessons import from_the_start, quarter, run_to_end
from tiny_runs import (
    batch_for,
    tiny_run,
)
from uda.checkpoints.snapshots import load
from uda.data.batch import Batch
from uda.data.config import DataConfig
from uda.data.training import TrainingData, open_training_data
from uda.experiment import Experiment, validate
from uda.experiments import load_preset
from uda.training import loop as engine
from uda.training.run import Run, StepResult
from uda.training.step import train_step


def watched_run(
    experiment: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, list[Batch]]:
    """The supervision stored in the run's snapshot, and the batches it trained on."""
    seen: list[Batch] = []

    def step(run: Run, batch: Batch) -> StepResult:
        seen.append(batch)
        return train_step(run, batch)

    monkeypatch.setattr(engine, "train_step", step)
    run_to_end(experiment, folder)
    (snapshot,) = folder.glob(f"*_{experiment.train.steps}.pth")
    assert len(seen) == experiment.train.steps
    return load(snapshot).supervision, seen


def honest(supervision: str, seen: list[Batch]) -> bool:
    """A run declares "ground truth" exactly if its batches had target labels."""
    given = any(batch.target_ground_truth is not None for batch in seen)
    return supervision.startswith("ground truth") == given


@pytest.mark.parametrize(
    ("name", "declared"),
    [
        ("logged_aagc_640x360_b2_single_cutmix", "ground truth (6 images)"),
        ("logged_aagc_640x360_b2_single_cutmix_real_d100", "ground truth (4 images)"),
        ("toy_cut_mix_ground_truth", "ground truth (6 images)"),
        ("aagc_640x360_b2_single_cutmix", "none"),
        ("toy_cut_mix", "none"),
    ],
)
def test_c2_the_labels_that_cut_mix_pastes_are_declared(
    name: str,
    declared: str,
    toy_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    experiment = from_the_start(name, toy_root, steps=2)
    supervision, seen = watched_run(experiment, tmp_path / "run", monkeypatch)
    assert supervision == declared
    assert honest(supervision, seen)
    assert all((batch.target_ground_truth is None) == (declared == "none") for batch in seen)
    printed = capsys.readouterr().out
    assert f"supervision      {declared} (of the target)\n" in printed
    assert re.search(rf"mIoU [\d.]+ \(supervision: {re.escape(declared)}\)", printed)


def test_c2_labels_that_are_loaded_and_not_declared_are_caught(
    toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's loader: every target image has its labels, and the run does not declare them."""

    def careless(data: DataConfig, *, seed: int, evaluated: str, **_: object) -> TrainingData:
        labeled = replace(data, target_ground_truth=True)
        opened = open_training_data(labeled, seed=seed, evaluated=evaluated)
        return replace(opened, supervision="none")

    monkeypatch.setattr(engine, "open_training_data", careless)
    experiment = from_the_start("toy_cut_mix", toy_root, steps=1)
    assert not honest(*watched_run(experiment, tmp_path / "run", monkeypatch))


STUDENTS = tuple(f"aagc_640x360_b2_student{end}" for end in
                 ("", "_autoaug", "_full", "_full_autoaug"))  # fmt: skip


def learns_from_pseudo_labels(experiment: Experiment) -> bool:
    """Whether different pseudo-labels give a different student after one step."""
    batch = quarter(batch_for(experiment))
    assert batch.target_pseudo_labels is not None
    students = []
    for train_id in (0, 2):
        run = tiny_run(experiment)
        labels = torch.full_like(batch.target_pseudo_labels, train_id)
        train_step(run, replace(batch, target_pseudo_labels=labels))
        students.append(run.student.state_dict())
    one, other = students
    return not all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", STUDENTS)
def test_c5b_students_learn_from_their_pseudo_labels(name: str, toy_root: Path) -> None:
    assert learns_from_pseudo_labels(from_the_start(name, toy_root))


def test_c5b_the_logs_student_is_caught_and_said(toy_root: Path) -> None:
    """It loaded its pseudo-labels, and no loss used them."""
    experiment = from_the_start("aagc_640x360_b2_student", toy_root)
    del experiment.objectives["pseudo_label"]
    assert not learns_from_pseudo_labels(experiment)
    found = validate(experiment)
    assert found.remarks == (
        f"data.pseudo_labels ({experiment.data.pseudo_labels}) is not used, as no objective needs "
        "it",
    )
    assert found.experiment.data.pseudo_labels is None


@pytest.mark.parametrize("name", STUDENTS)
def test_c5b_what_was_run_has_no_pseudo_labels_at_all(name: str) -> None:
    experiment = load_preset(f"logged_{name}")
    assert experiment.data.pseudo_labels is None
    assert not any("pseudo_labels" in o.needs() for o in experiment.objectives.values())
