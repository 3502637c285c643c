"""Signals that ask a program to end: one line and a status, from its first import to its last.

Nothing here imports torch: the commands listen before they import anything else.
"""

import _thread
import atexit
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

# What a terminal, a scheduler, and a terminal that is closed send.
SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
# torchrun forwards what a scheduler has also sent to every process: one request, not impatience.
ONE_REQUEST = 1.0  # seconds

Handler = Callable[[int, FrameType | None], Any]


class Interrupted(KeyboardInterrupt):
    """A signal asks the program to end; whatever it was doing is undone on the way."""

    def __init__(self, number: int) -> None:
        super().__init__(said(number))
        self.number = number

    @property
    def status(self) -> int:
        """The exit status by which shells know that a signal ended a program."""
        return 128 + self.number


class Stopped(BaseException):
    """A signal has ended the run in good order. The message says when, and what resumes it."""

    number = 0  # of the signal, where its handler raises this


def said(number: int) -> str:
    """What the last line of a program says of the signal that has ended it."""
    return "interrupted" if number == signal.SIGINT else f"stopped by {name_of(number)}"


def name_of(number: int) -> str:
    """SIGTERM and the like."""
    return signal.Signals(number).name


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Calls `handler` for SIGNALS. Only the main thread can; in any other, they act as before.

    SIGHUP stays ignored where it is: nohup has asked for that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [number for number in SIGNALS if not _is_to_be_ignored(number)]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            # None: set by something that is not Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if former is None else former)


def _is_to_be_ignored(number: int) -> bool:
    return number != signal.SIGINT and signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Within it, while a program imports what it needs, a signal ends it at once with one line:
    there is nothing to undo, and an exception would reach the user as that of a library. So it is
    again when Python itself ends."""
    try:
        with handled(_end):
            yield
    finally:
        atexit.register(_end_from_now_on)


def _end_from_now_on() -> None:
    for number in SIGNALS:
        if not _is_to_be_ignored(number):
            signal.signal(number, _end)


def _end(number: int, frame: FrameType | None) -> None:
    _say_and_exit(number)


def _say_and_exit(number: int, *, quietly: bool = False) -> None:
    if not quietly and os.environ.get("RANK", "0") == "0":
        os.write(2, f"error: {said(number)}\n".encode())
    os._exit(128 + number)


class Listener:
    """Whether a signal has been heard, and what it does; see `listening`."""

    def __init__(self) -> None:
        self.heard: Interrupted | None = None
        self._since = 0.0  # seconds of the monotonic clock
        self._again = False  # whether the next one is ours, not the user's

    def hear(self, number: int, frame: FrameType | None) -> None:
        """Raises Interrupted. If the program still runs at the next signal, that ends it."""
        if self.heard is None:
            self.heard, self._since = Interrupted(number), time.monotonic()
        elif self._again:
            self._again = False
        elif time.monotonic() - self._since > ONE_REQUEST:
            _say_and_exit(number)
        else:
            return
        raise self.heard

    def repeat(self, number: int) -> None:
        """Sends the signal once more: its exception came where Python can only ignore it."""
        self._again = True
        _thread.interrupt_main(signal.Signals(number))


@contextmanager
def listening() -> Iterator[Listener]:
    """Within it, a signal raises Interrupted, and a second one ends the program at once; no
    destructor or callback that is running at that moment can swallow it."""
    listener = Listener()
    before = sys.unraisablehook

    def hook(ignored: "sys.UnraisableHookArgs") -> None:
        number = getattr(ignored.exc_value, "number", 0)
        if isinstance(ignored.exc_value, Exception) or number not in SIGNALS:
            before(ignored)
        else:
            listener.repeat(number)

    sys.unraisablehook = hook
    try:
        with handled(listener.hear):
            yield listener
    finally:
        sys.unraisablehook = before
