"""SIGTERM, SIGINT and SIGHUP, such as a scheduler's preemption: the current step is finished and
saved. So it is when a loader process is lost.

Several processes have to stop after the same step, but may get the signal in different ones. They
exchange the request before every step through the hosts' memory (a gloo group next to that of
NCCL): the host waits for the other hosts, never for a GPU.
"""

import os
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

from uda.utilities.distributed import HostVote, any_of
from uda.utilities.errors import InputError
from uda.utilities.interrupts import ONE_REQUEST, handled, name_of
from uda.utilities.interrupts import Stopped as Stopped
from uda.utilities.loading import LoaderLostError, is_waiting

T = TypeVar("T")

FROM_PYTHON = "uda.train(..., resume=True)"  # what resumes a run that no command has started


class EvaluationCutOff(Exception):  # noqa: N818
    """A signal has ended an evaluation before its last image."""


class _NoMoreWaiting(BaseException):
    """A signal came while the main thread was waiting for a loader process."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class Stop:
    """Whether a signal, or the loss of a loader process, asks the run to stop.

    Before the first step there is nothing to finish, so the signal raises Stopped at once. From
    `begin_steps` on it is remembered; a second one ends the process, as it does in any program.
    """

    def __init__(self, resume_with: str = FROM_PYTHON) -> None:
        """`resume_with`: the command or call that resumes the run, for the message."""
        self.signal = ""  # the name of the first one received
        self.lost = ""  # how a loader process has ended
        self._resume_with = resume_with
        self._received = 0.0  # seconds of the monotonic clock
        self._vote: HostVote | None = None
        self._fetches = False

    def begin_steps(self) -> None:
        """Must be called on all ranks before the first step."""
        self._vote = HostVote()

    def agreed(self) -> bool:
        """Whether any rank has to stop, the same on all; must be called on all ranks."""
        assert self._vote is not None, "begin_steps() comes first"
        stops = self._vote.any(bool(self.signal or self.lost))
        if stops and not self.signal:
            self.signal = "a signal to another process"
        return stops

    def next_of(self, items: Iterator[T]) -> T | None:
        """The next item of a stream that has one; None, on all ranks, when one has to stop. Must be
        called on all ranks."""
        found = next(self._until_stopped(items), None)
        return None if self.agreed() else found

    def cut_off(self, items: Iterable[T]) -> Iterator[T]:
        """The items of an evaluation until it has to stop. All ranks must exhaust it; raises
        EvaluationCutOff on all of them when any was cut off."""
        yield from self._until_stopped(iter(items))
        if self._vote is not None and self.agreed():
            raise EvaluationCutOff

    def _until_stopped(self, items: Iterator[T]) -> Iterator[T]:
        while not self.signal:
            self._fetches = True
            try:
                item = next(items)
            except (StopIteration, _NoMoreWaiting):
                return
            except LoaderLostError as error:
                if self._vote is None:
                    raise
                self.lost = error.cause
                return
            finally:
                self._fetches = False
            yield item

    def hear(self, number: int, frame: FrameType | None) -> None:
        """The handler of the signals."""
        name = name_of(number)
        if self._vote is None:
            stopped = Stopped(
                f"stopped by {name} before the first step: start it again in the same way"
            )
            stopped.number = number
            raise stopped
        if not self.signal:
            self.signal, self._received = name, time.monotonic()
        elif time.monotonic() - self._received > ONE_REQUEST:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        if self._fetches and is_waiting():
            raise _NoMoreWaiting(number)

    def stopped(self, step: int) -> Stopped | InputError:
        """What to raise once everything is saved; must be called on all ranks."""
        how = f"resume with: {self._resume_with}"
        if lost := any_of(self.lost):
            return LoaderLostError(lost, f"the run is saved after step {step}; {how}")
        return Stopped(f"stopped by {self.signal} after step {step}; {how}")


@contextmanager
def stop_on_signals(resume_with: str = FROM_PYTHON) -> Iterator[Stop]:
    """Handles SIGTERM, SIGINT and SIGHUP. Only the main thread can: in any other, they act as
    before."""
    stop = Stop(resume_with)
    with handled(stop.hear):
        yield stop
