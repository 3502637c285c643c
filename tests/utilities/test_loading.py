"""Loader processes that are killed, stopped or abandoned; signals while one is waited for."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from tiny_runs import REPOSITORY, python_path
from uda.training.signals import Stop
from uda.utilities.loading import LoaderLostError, read_ahead


class Acting(Dataset[Tensor]):
    """Tensors; before number `at` a process does something."""

    def __init__(self, at: int, act: Callable[[], object]) -> None:
        self.at, self.act = at, act

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> Tensor:
        if index == self.at:
            self.act()
        return torch.full((3,), index)


def only(items: list[Tensor]) -> Tensor:
    return items[0]


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def crashed() -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def left() -> None:
    os._exit(3)


# The error may come while torch has a file of its own open, which is then closed by Python.
@pytest.mark.filterwarnings("ignore:.*FileIO:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("at", [0, 7])
@pytest.mark.parametrize(
    ("act", "how"), [(killed, "SIGKILL, as"), (crashed, "SIGSEGV"), (left, "itself, with status 3")]
)
def test_a_loader_that_ends_is_named(act: Callable[[], object], how: str, at: int) -> None:
    before = signal.getsignal(signal.SIGCHLD)
    began = time.monotonic()
    found = read_ahead(Acting(at, act), workers=2, collate=only)
    with pytest.raises(LoaderLostError, match=rf"^loader process \d+ .*{how}.*; start the command"):
        list(found)
    assert time.monotonic() - began < 4, "it is not waited for"
    assert multiprocessing.active_children() == []
    assert signal.getsignal(signal.SIGCHLD) is before


def test_a_loader_that_is_killed_between_two_batches() -> None:
    """The step that is being made is not torn apart by an exception."""
    found = read_ahead(Acting(-1, killed), workers=1, collate=only)
    assert next(found).tolist() == [0] * 3
    (process,) = multiprocessing.active_children()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()  # during a step
    with pytest.raises(LoaderLostError):
        next(found)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_the_wait_for_a_loader_that_is_stopped(number: signal.Signals) -> None:
    stop = Stop()
    stop.begin_steps()
    former = signal.signal(number, stop.hear)
    found = read_ahead(Acting(3, stopped), workers=1, collate=only)
    timer = threading.Timer(0.4, os.kill, (os.getpid(), number))
    try:
        timer.start()
        seen = 0
        while stop.next_of(found) is not None:
            seen += 1
        assert seen <= 3
        assert stop.signal == number.name
    finally:
        signal.signal(number, former)
        timer.join()
    assert multiprocessing.active_children() == []


ENDS = """
import os, signal, sys, time
import torch
from torch.utils.data import Dataset
from uda.utilities.loading import read_ahead

class Slow(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        if index == 0:
            print(os.getpid(), flush=True)
        time.sleep(0.01)
        return torch.zeros(2)

def only(items):
    return items[0]

if __name__ == "__main__":
    method, ends_by = sys.argv[1:]
    torch.multiprocessing.set_start_method(method)
    found = read_ahead(Slow(), workers=1, collate=only)
    next(found)
    if ends_by == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
"""


def is_there(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("method", "ends_by", "status"),
    [
        ("fork", "kill", -signal.SIGKILL),
        pytest.param("spawn", "kill", -signal.SIGKILL, marks=pytest.mark.slow),
        # What is left over is closed when Python itself ends, and no thread can be started.
        pytest.param("fork", "exit", 0, marks=pytest.mark.slow),
    ],
)
def test_no_loader_outlives_its_main_process(
    method: str, ends_by: str, status: int, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(ENDS)
    done = subprocess.run(
        [sys.executable, str(program), method, ends_by], capture_output=True, text=True, timeout=30,
        env=os.environ | {"PYTHONPATH": python_path(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    deadline = time.monotonic() + 3
    while is_there(int(done.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_loader_ends_whose_main_process_was_gone_before_it_could_ask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from uda.utilities.loading import leave_signals_to_the_main_process

    ended: list[int] = []

    def end(status: int) -> None:
        ended.append(status)
        raise SystemExit

    monkeypatch.setattr(os, "_exit", end)
    with pytest.raises(SystemExit):
        leave_signals_to_the_main_process(main_process=os.getpid())
    assert ended == [1]
