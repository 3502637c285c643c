"""What every fuzzed input goes through: nothing but success or InputError, soon, and no write
elsewhere. The number of inputs is UDA_FUZZ_INPUTS of the slow run, a fraction of it otherwise."""

import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.strategies import SearchStrategy

from uda.utilities.errors import InputError

T = TypeVar("T")

# What hypothesis keeps for itself is not for the repository.
set_hypothesis_home_dir(str(Path(tempfile.gettempdir(), "uda-hypothesis")))

ALL = int(os.environ.get("UDA_FUZZ_INPUTS", "10000"))  # of the slow run, over all targets
FEW = 300  # of the fast one
_DEADLINE = 10.0  # seconds of this process for one input
_LONGEST_WAIT = 120.0  # seconds of the clock: the machine may be busy, and what waits uses no time
_LONGEST_MESSAGE = 3000  # characters; a user reads it

both_runs = pytest.mark.parametrize(
    "total", [pytest.param(FEW, id="few"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]
)

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_MOVING = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.chmod",
           "os.truncate", "shutil.rmtree", "shutil.copyfile", "shutil.move")  # fmt: skip
_OF_TWO = ("os.rename", "os.link", "os.symlink", "shutil.copyfile", "shutil.move")
_NEVER = ("os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen",
          "socket.connect", "ctypes.dlopen", "webbrowser.open")  # fmt: skip


class Escape(BaseException):
    """Something was done that no input may cause; it passes every `except Exception`."""


@dataclass
class Tally:
    """What became of the inputs of one target."""

    target: str
    refused: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = field(default=0.0)

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.refused + self.accepted} inputs, {self.refused} refused, "
            f"{self.accepted} accepted, {self.seconds:.1f} s, slowest {self.slowest:.2f} s"
        )


_home: Path | None = None  # while an input is under way, the only folder that may be written to


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _home is None:
        return
    if event in _NEVER:
        raise Escape(f"{event}{arguments!r}")
    if event == "open" and not isinstance(arguments[0], int):
        if arguments[2] & _WRITING:
            _refuse_outside(event, arguments[0])
    elif event in _MOVING:
        folder = arguments[-1]  # of os.remove and the like: where a name without one belongs
        at = f"/proc/self/fd/{folder}" if isinstance(folder, int) and folder >= 0 else ""
        for path in arguments[: 2 if event in _OF_TWO else 1]:
            if not isinstance(path, int):  # an open file, whose opening was looked at
                _refuse_outside(event, os.path.join(at, path))  # noqa: PTH118


def _refuse_outside(event: str, path: str | bytes | os.PathLike[str]) -> None:
    assert _home is not None
    if not Path(os.path.realpath(os.fsdecode(path))).is_relative_to(_home):
        raise Escape(f"{event} of {path!r}")


sys.addaudithook(_audit)


def attempt(tally: Tally, home: Path, *calls: Callable[[], object]) -> None:
    """Makes all `calls` for one input, which is refused when one of them refuses it. They may
    write below `home` only; whatever they raise but InputError fails."""
    started = time.perf_counter()
    with _time_limit():
        refused = [_refuses(call, home.resolve()) for call in calls]
    tally.refused += any(refused)
    tally.accepted += not any(refused)
    took = time.perf_counter() - started
    tally.seconds += took
    tally.slowest = max(tally.slowest, took)


def _refuses(call: Callable[[], object], home: Path) -> bool:
    global _home
    _home = home
    try:
        call()
    except InputError as error:
        _home = None
        _check_message(str(error))
        return True
    finally:
        _home = None
    return False


def _check_message(message: str) -> None:
    assert message.strip(), "the refusal says nothing"
    assert len(message) < _LONGEST_MESSAGE, f"a refusal of {len(message)} characters"


@contextmanager
def _time_limit() -> Iterator[None]:
    def hangs(which: int, _frame: FrameType | None) -> None:
        raise Escape(f"an input takes too long ({signal.Signals(which).name})")

    before = {which: signal.signal(which, hangs) for which in (signal.SIGPROF, signal.SIGALRM)}
    signal.setitimer(signal.ITIMER_PROF, _DEADLINE)
    signal.setitimer(signal.ITIMER_REAL, _LONGEST_WAIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        for which, handler in before.items():
            signal.signal(which, handler)


def drive(strategy: SearchStrategy[T], check: Callable[[T], None], count: int) -> None:
    """Calls `check` with `count` values of `strategy`, the same in every run."""

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,  # of its own is `attempt`'s
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(value: T) -> None:
        check(value)

    run()
