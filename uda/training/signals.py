"""SIGTERM and SIGINT, such as a scheduler's preemption: the current step is finished and saved.

Several processes have to stop after the same step, but may get the signal in different ones. They
exchange the request after every step through the hosts' memory (a gloo group next to that of NCCL):
the host waits for the other hosts, never for a GPU.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from uda.utilities.distributed import HostVote

T = TypeVar("T")

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
# torchrun forwards what a scheduler has also sent to every process: one request, not impatience.
_ONE_REQUEST = 1.0  # seconds
FROM_PYTHON = "uda.train(..., resume=True)"  # what resumes a run that no command has started


class Stopped(BaseException):
    """A signal has ended the run in good order. The message says when, and what resumes it."""


class EvaluationCutOff(Exception):  # noqa: N818
    """A signal has ended an evaluation before its last image."""


class Stop:
    """Whether a signal has asked the run to stop.

    Before the first step there is nothing to finish, so the signal raises Stopped at once. From
    `begin_steps` on it is remembered; a second one ends the process, as it does in any program.
    """

    def __init__(self, resume_with: str = FROM_PYTHON) -> None:
        """`resume_with`: the command or call that resumes the run, for the message."""
        self.signal = ""  # the name of the first one received
        self._resume_with = resume_with
        self._received = 0.0  # seconds of the monotonic clock
        self._vote: HostVote | None = None

    def begin_steps(self) -> None:
        """Must be called on all ranks before the first step."""
        self._vote = HostVote()

    def agreed(self) -> bool:
        """Whether any rank got a signal, the same on all; must be called on all ranks."""
        assert self._vote is not None, "begin_steps() comes first"
        stops = self._vote.any(bool(self.signal))
        if stops and not self.signal:
            self.signal = "a signal to another process"
        return stops

    def cut_off(self, items: Iterable[T]) -> Iterator[T]:
        """The items of an evaluation until a signal arrives. All ranks must exhaust it; raises
        EvaluationCutOff on all of them when any was cut off."""
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
            raise Stopped(
                f"stopped by {name} before the first step: start it again in the same way"
            )
        if not self.signal:
            self.signal, self._received = name, time.monotonic()
        elif time.monotonic() - self._received > _ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def stopped(self, step: int) -> Stopped:
        """What to raise once everything is saved."""
        how = f"resume with: {self._resume_with}"
        return Stopped(f"stopped by {self.signal} after step {step}; {how}")


@contextmanager
def stop_on_signals(resume_with: str = FROM_PYTHON) -> Iterator[Stop]:
    """Handles SIGTERM and SIGINT. Only the main thread can: in any other, they act as before."""
    stop = Stop(resume_with)
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.hear) for number in _SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
