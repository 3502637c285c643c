"""The experiment log's mistakes as tests: C5f, a resumed run lost its state; C5i, no seed was set.

The restart of a preset repeats on purpose what C5f and C5g did to the log's CutMix runs.
"""

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from log_lessons import (
    from_the_start,
    quarter,
    run_to_end,
)
from tiny_runs import (
    assert_different,
    assert_same,
    batch_for,
    metrics,
    steps,
    tiny_preset,
    tiny_run,
)
from uda.checkpoints.snapshots import read
from uda.data.batch import Batch, View
from uda.data.training import open_training_data
from uda.experiment import Experiment, RestartConfig
from uda.labels.spaces import IGNORE_INDEX
from uda.objectives.base import Objective, StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.optim.teacher import TeacherConfig
from uda.training import loop as engine
from uda.training.run import Run, StepResult
from uda.training.run_plan import RunPlan
from uda.training.step import _collect_views, train_step


def everything_that_moves(toy_root: Path) -> Experiment:
    """Two kinds of momenta, discriminators, class balance and a teacher."""
    experiment = from_the_start("aagc_640x360_b2", toy_root, steps=6)
    experiment.objectives["class_mix"] = ClassMixConfig(threshold=0.056, confidence="pixel")
    experiment.teacher = TeacherConfig()
    experiment.train.optimizer.lr = 0.01
    return experiment


def move(run: Run, count: int) -> None:
    """`count` steps on random images, with classes 0 to 5 in the first three and 6 to 11 later."""
    batch = quarter(batch_for(run.experiment))
    labels = batch.source_labels
    others = torch.where(labels == IGNORE_INDEX, labels, labels + 6)
    for _ in range(count):
        train_step(run, batch if run.step < 3 else replace(batch, source_labels=others))


@pytest.fixture(scope="module")
def moved(toy_root: Path) -> Run:
    """A run after three of its six steps. Do not change it."""
    run = tiny_run(everything_that_moves(toy_root))
    move(run, 3)
    return run


@pytest.fixture(scope="module")
def saved(moved: Run, toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Its state, read back from resume.pth."""
    path = tmp_path_factory.mktemp("resumed") / "run"
    path.mkdir()
    experiment = moved.experiment
    data = open_training_data(experiment.data, seed=0, evaluated="cityscapes")
    plan = RunPlan(path, "tiny", experiment, data)
    plan.started(supervision="none", initial_weights="random").save_resume(moved.state())
    resumed = plan.load_resume()
    assert resumed is not None
    return resumed.state


@pytest.fixture(scope="module")
def two_steps_later(moved: Run, saved: dict[str, Any]) -> dict[str, Tensor]:
    """Its student two steps after it was resumed."""
    return two_steps_after(saved, moved.experiment)


def two_steps_after(state: Mapping[str, Any], experiment: Experiment) -> dict[str, Tensor]:
    """The student two steps after a new run loaded `state`."""
    run = tiny_run(experiment)
    run.load_state(copy.deepcopy(dict(state)))
    assert run.step == state["step"]
    move(run, 2)
    return {name: tensor.clone() for name, tensor in run.student.state_dict().items()}


@pytest.mark.slow
def test_c5f_a_resumed_run_has_forgotten_nothing(
    moved: Run, saved: dict[str, Any], two_steps_later: dict[str, Tensor]
) -> None:
    resumed = tiny_run(moved.experiment)
    resumed.load_state(saved)
    assert_same(resumed.state(), moved.state())
    straight = tiny_run(moved.experiment)
    move(straight, 5)
    assert_same(two_steps_later, straight.student.state_dict())


def forget(state: dict[str, Any], path: str, new: Mapping[str, Any]) -> None:
    """Replaces the part of `state` at `path` by that of a new run."""
    *parents, last = path.split("/")
    for name in parents:
        state, new = state[name], new[name]
    state[last] = new[last]


PARTS = {
    "momentum": ("optimizers/student/state",),
    "the discriminators' moments": ("optimizers/adversarial/state",),
    "discriminators": ("objectives/adversarial",),
    "class balance": ("objectives/supervised/balance.rarity",),
    "teacher": ("teacher",),
    "student": ("student",),
    "step": ("step",),
    "all but the student, as in the log": ("optimizers", "objectives", "teacher", "step"),
}


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_c5f_any_part_that_is_lost_shows_in_the_student(
    part: str, moved: Run, saved: dict[str, Any], two_steps_later: dict[str, Tensor]
) -> None:
    new = tiny_run(moved.experiment).state()
    state = copy.deepcopy(saved)
    for path in PARTS[part]:
        forget(state, path, new)
    assert_different(two_steps_after(state, moved.experiment), two_steps_later)


def test_c5i_the_seed_is_used(toy_root: Path) -> None:
    states = []
    for seed in (0, 0, 1):
        experiment = tiny_preset("aagc_640x360_b2", toy_root)
        experiment.train.seed = seed
        run = tiny_run(experiment)
        steps(run, 1)
        states.append(run.state())
    assert_same(states[0], states[1])
    assert_different(states[0], states[2])


def restarted(toy_root: Path, *, at_step: int | None = 3) -> Experiment:
    """Six steps of a schedule of ten. At `at_step` all restarts under a schedule of twelve."""
    experiment = from_the_start("aagc_640x360_b2_single", toy_root, steps=6)
    experiment.data.crop = (32, 64)
    experiment.train.warmup_steps = 0
    experiment.train.schedule_steps = 10
    if at_step is not None:
        experiment.train.restart = RestartConfig(at_step=at_step, schedule_steps=12)
    return experiment


def test_restart_begins_all_anew_but_the_student(
    toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tiny_run(restarted(toy_root))
    move(run, 3)
    before = copy.deepcopy(run.state())
    at_restart: list[dict[str, Any]] = []
    collect = _collect_views

    def watched(
        run: Run, active: Mapping[str, Objective], batch: Batch, context: StepContext
    ) -> list[View]:
        at_restart.append(copy.deepcopy(run.state()))
        return collect(run, active, batch, context)

    monkeypatch.setattr("uda.training.step._collect_views", watched)
    move(run, 1)
    (after,) = at_restart
    assert_same(after["student"], before["student"])
    assert before["optimizers"]["student"]["state"]
    for optimizer in after["optimizers"].values():
        assert optimizer["state"] == {}
    # Class balance starts at 1. After three steps without a class it is 1 + 6 * (1 - 0.9 ** 3).
    assert before["objectives"]["supervised"]["balance.rarity"].max() == pytest.approx(2.626)
    assert after["objectives"]["supervised"]["balance.rarity"].tolist() == [1.0] * 19
    old, new = (state["objectives"]["adversarial"] for state in (before, after))
    matrices = [name for name, weight in old.items() if weight.ndim == 4]
    assert len(matrices) > 8
    for name in matrices:
        assert old[name].shape == new[name].shape
        assert not torch.isclose(old[name], new[name]).all(), name


def test_restart_changes_the_schedule(toy_root: Path) -> None:
    """By hand: (1 - step / 10) ** 0.9 up to the restart, then (1 - step / 12) ** 0.9."""
    run = tiny_run(restarted(toy_root))
    rates = []
    for _ in range(6):
        move(run, 1)
        rates.append([run.optimizers[name].param_groups[0]["lr"] for name in run.optimizers])
    factors = [1, 0.909533, 0.818052, 0.771890, 0.694253, 0.615638]
    assert list(run.optimizers) == ["student", "adversarial"]
    assert rates == [pytest.approx([2e-4 * f, 1e-4 * f], rel=1e-5) for f in factors]


def test_restart_happens_at_its_step_and_only_once(toy_root: Path) -> None:
    straight, early, late = (
        tiny_run(restarted(toy_root, at_step=at_step)) for at_step in (None, 2, 4)
    )
    for run in (straight, early, late):
        move(run, 2)
    assert_same(straight.state(), early.state())
    for run in (straight, early, late):
        move(run, 2)
    assert_same(straight.state(), late.state())
    assert_different(straight.state()["objectives"], early.state()["objectives"])
    # Adam counts two steps since the restart.
    moments = early.state()["optimizers"]["adversarial"]["state"].values()
    assert {int(moment["step"]) for moment in moments} == {2}


@pytest.fixture(scope="module")
def straight_on(toy_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run over its restart that nothing interrupts."""
    experiment = restarted(toy_root)
    experiment.train.resume_every = 1
    folder = tmp_path_factory.mktemp("restarted") / "straight"
    run_to_end(experiment, folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("at", [2, 3, 4])
def test_a_run_interrupted_around_its_restart_equals_a_straight_one(
    at: int, straight_on: Path, toy_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = restarted(toy_root)
    experiment.train.resume_every = 1

    def step(run: Run, batch: Batch) -> StepResult:
        if run.step == at:
            raise KeyboardInterrupt
        return train_step(run, batch)

    with monkeypatch.context() as patch:
        patch.setattr(engine, "train_step", step)
        with pytest.raises(KeyboardInterrupt):
            run_to_end(experiment, tmp_path / "resumed")
    assert read(tmp_path / "resumed/resume.pth")["step"] == at
    run_to_end(experiment, tmp_path / "resumed", resume=True)
    straight, resumed = (read(f / "resume.pth") for f in (straight_on, tmp_path / "resumed"))
    assert straight["step"] == 6
    assert_same(straight, resumed)
    assert metrics(straight_on) == metrics(tmp_path / "resumed")
