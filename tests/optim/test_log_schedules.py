"""The experiment log's mistakes as tests: C5g, schedules that a run does not finish.

Networks were evaluated in the first fifth of their schedule.
"""

from pathlib import Path

import pytest

from log_lessons import from_the_start, run_to_end
from tiny_runs import (
    metrics,
)
from uda.experiment import TrainConfig
from uda.experiments import PRESETS, load_preset
from uda.optim.schedules import learning_rate_factor

TRAINING = tuple(name for name in PRESETS if load_preset(name).train.steps > 0)
# Papers that stop early: by design, and scored where they stop.
STOPPED_EARLY = ("adaptsegnet_", "minent_", "advent_", "fda_")
PLAIN = tuple(name for name in TRAINING if not name.startswith(("logged_", *STOPPED_EARLY)))
LOGGED = tuple(name for name in TRAINING if name.startswith("logged_"))


def rate_at(train: TrainConfig, step: int) -> float:
    """The learning rate of the update after `step` updates."""
    return train.optimizer.lr * learning_rate_factor(
        step, steps=train.decay_steps(step), warmup_steps=train.warmup_steps, power=train.power
    )


def ends_where_it_is_read(train: TrainConfig) -> bool:
    last = rate_at(train, train.steps - 1) / train.optimizer.lr
    return last < 2 * (1 / train.steps) ** 0.9


@pytest.mark.parametrize("name", PLAIN)
def test_c5g_a_schedule_ends_where_its_network_is_read(name: str) -> None:
    train = load_preset(name).train
    assert train.schedule_steps is None
    assert train.restart is None
    assert ends_where_it_is_read(train)


@pytest.mark.parametrize("name", LOGGED)
def test_c5g_the_logs_schedules_are_caught(name: str) -> None:
    train = load_preset(name).train
    assert train.schedule_steps is not None
    assert train.schedule_steps > train.steps
    assert train.restart is None or train.restart.schedule_steps > train.steps
    assert not ends_where_it_is_read(train)


@pytest.mark.parametrize(
    ("name", "step", "rate"),
    [
        # 2e-4 * (1 - 40000 / 250000) ** 0.9
        ("logged_aagc_640x360_b2", 39_999, 1.7e-4),
        ("logged_aagc_640x360_b2_single_cutmix", 29_999, 1.78e-4),
        # From 30000 on: 2e-4 * (1 - step / 45000) ** 0.9. Most of the log's gain from CutMix.
        ("logged_aagc_640x360_b2_single_cutmix", 30_001, 7.4e-5),
        ("logged_aagc_640x360_b2_single_cutmix", 39_999, 2.8e-5),
        ("aagc_640x360_b2", 44_999, 1.3e-8),
    ],
)
def test_c5g_rates_as_the_log_had_them(name: str, step: int, rate: float) -> None:
    assert rate_at(load_preset(name).train, step) == pytest.approx(rate, rel=0.02)


def test_c5g_the_last_step_is_the_one_that_is_read(toy_root: Path, tmp_path: Path) -> None:
    experiment = from_the_start("toy_source_only", toy_root)
    experiment.train.warmup_steps = 0
    experiment.evaluation.every = 2
    run_to_end(experiment, tmp_path / "run")
    lines = metrics(tmp_path / "run")
    assert [line["step"] for line in lines if "miou" in line] == [2, 3]
    rates = [line["lr"] for line in lines if "lr" in line]
    lr = experiment.train.optimizer.lr
    assert rates == pytest.approx([lr, lr * (2 / 3) ** 0.9, lr * (1 / 3) ** 0.9])
