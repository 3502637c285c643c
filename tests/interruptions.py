"""Runs that are interrupted: by a signal, by a kill, before a given step."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from shells import CLASS_MIX
from tiny_runs import (
    CPU,
    REPOSITORY,
    metrics,
    tiny_options,
    tiny_preset,
)
from uda.checkpoints.snapshots import read
from uda.data.batch import Batch
from uda.experiment import Experiment
from uda.training import loop as engine
from uda.training.loop import train
from uda.training.run import Run, StepResult
from uda.training.signals import Stopped
from uda.training.step import train_step


def experiment_of(toy_root: Path) -> Experiment:
    """Class mix for 6 steps that saves and evaluates after each second one."""
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.train.resume_every = experiment.train.snapshot_every = 2
    experiment.evaluation.every = 2
    return experiment


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool | Path = False) -> None:
    train(experiment, folder, preset="tiny", device=CPU, resume=resume)


def files(folder: Path) -> dict[str, Any]:
    """What a finished run has computed."""
    snapshots = {path.name: read(path) for path in folder.glob("*.pth")}
    snapshots.pop("resume.previous.pth", None)
    return {"metrics": metrics(folder)} | snapshots


@contextmanager
def before_step(number: int, act: Any) -> Iterator[None]:  # noqa: ANN401
    """Calls `act` when update `number`, from 0, is about to be made."""
    original = train_step

    def step(run: Run, batch: Batch) -> StepResult:
        if run.step == number:
            act()
        return original(run, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "train_step", step)
        yield


def sending(number: signal.Signals) -> Any:  # noqa: ANN401
    return lambda *_, **__: os.kill(os.getpid(), number)


def long_run(toy_root: Path, *more: str) -> list[str]:
    sets = [part for setting in ("train.steps=4000", "train.resume_every=2", "data.workers=1")
            for part in ("--set", setting)]  # fmt: skip
    return [*CLASS_MIX, *tiny_options(toy_root), *sets, "--run", "run", *more]


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kill_once_there(path: Path, process: "subprocess.Popen[str]") -> None:
    """Kills the process as soon as it has written the file."""
    wait_for(path, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def start_group(cwd: Path, *command: str) -> "subprocess.Popen[str]":
    """A command of this Python that leads a group of processes, as one in a terminal does."""
    return subprocess.Popen(
        [sys.executable, *command], cwd=cwd, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


def stopped_after(step: int, experiment: Experiment, folder: Path) -> Path:
    """The folder of a run that a signal has ended."""
    with before_step(step - 1, sending(signal.SIGTERM)), pytest.raises(Stopped):
        run_to_end(experiment, folder)
    return folder


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
