"""SIGTERM and SIGINT, such as a scheduler's preemption: the step under way is finished and saved.

Several processes have to stop after the same step, but hear of it in different ones. They exchange
the wish after every step through the hosts' memory (a group of gloo's beside that of NCCL): the
host waits for the other hosts, never for a GPU.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from uda.utilities.distributed import HostVote

T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# torchrun passes on what a scheduler has sent to every process: one wish, and not impatience.
_ONE_WISH = 1.0  # seconds


class Stopped(BaseException):
    """A signal has ended the run in good order. The message says when, and how it goes on."""


class EvaluationCutOff(Exception):  # noqa: N818
    """A signal has ended an evaluation before its last image."""


class Stop:
    """Whether a signal has asked the run to stop.

    Before the first step there is nothing to finish, so the signal raises Stopped at once. From
    `begin_steps` on it is remembered; a second one ends the process, as it does in any program.
    """

    def __init__(self) -> None:
        self.signal = ""  # the name of the one that came
        self._came = 0.0  # seconds of the monotonic clock
        self._vote: HostVote | None = None

    def begin_steps(self) -> None:
        """To be called on all ranks before the first step."""
        self._vote = HostVote()

    def agreed(self) -> bool:
        """Whether any rank has been asked to, the same on all; all have to come here."""
        assert self._vote is not None, "asked before the first step"
        stops = self._vote.any(bool(self.signal))
        if stops and not self.signal:
            self.signal = "a signal to another process"
        return stops

    def cut_off(self, items: Iterable[T]) -> Iterator[T]:
        """The items of an evaluation, for as long as no signal comes. All ranks have to end it;
        raises EvaluationCutOff on all when any was cut off."""
        for item in items:
            if self.signal:
                break
            yield item
        if self._vote is not None and self.agreed():
            raise EvaluationCutOff

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        name = signal.Signals(number).name
        if self._vote is None:
            raise Stopped(f"stopped by {name} before the first step; {_spelled(sys.argv)}")
        if not self.signal:
            self.signal, self._came = name, time.monotonic()
        elif time.monotonic() - self._came > _ONE_WISH:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def stopped(self, step: int) -> Stopped:
        """What to raise once everything is saved."""
        return Stopped(f"stopped by {self.signal} after step {step}; {resume_line(sys.argv)}")


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Listens to SIGTERM and SIGINT. Only a main thread can: in any other they do as before."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.hear) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def resume_line(arguments: Sequence[str]) -> str:
    """How a run goes on that a program with these `arguments` (its name first) has begun."""
    return _spelled([*_without_resume(arguments), "--resume"])


def _spelled(arguments: Sequence[str]) -> str:
    local, world = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    launcher = "python"
    if local is not None:
        launcher = f"torchrun --nproc-per-node {local} --"
    if local != world:
        launcher = f"torchrun (on {world} processes, as before) --"
    return f"go on with: {launcher} {shlex.join(arguments)}"


def _without_resume(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--resume` and its path, if it had one."""
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        value, dropping = dropping and not argument.startswith("-"), argument == "--resume"
        if not (value or dropping or argument.startswith("--resume=")):
            kept.append(argument)
    return kept
