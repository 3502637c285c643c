"""What `torture.py` does to every command: kills and errors at chosen file-system operations, kills
at random moments, two writers of one folder, frozen processes."""

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from torture_runs import (
    ENDED,
    KILLED,
    REFUSED,
    Kill,
    differing_bits,
    left_behind,
    outcome,
    run,
    start,
)
from torture_tasks import TASKS
from torture_traps import ACTS, Act, Trap, install
from uda.utilities.errors import InputError

_NEVER = 10**9
_LATEST = (
    0.9  # of the length of an undisturbed call: what ends before its kill comes was not killed
)
_LONGEST = 60.0  # seconds that a frozen process may take to end
Rng = np.random.Generator


@dataclass
class Trials:
    """What became of the disturbed calls of one command."""

    trials: int = 0
    killed: int = 0
    refused: int = 0  # ended with one line
    ended: int = 0  # in spite of all
    differing_bits: int = 0  # of what the undisturbed repetition then left, to an undisturbed call


class Command:
    """One command, in one output folder after the other."""

    def __init__(self, folder: Path, name: str) -> None:
        """Calls it once undisturbed, which tells what has to come out and how long it takes."""
        self.name = name
        self._folder, self._task = folder, TASKS[name]
        self._calls = 0
        first = self.place()
        started = time.monotonic()
        run(self.call(first), first)
        self.length = time.monotonic() - started
        self.expected = left_behind(first)

    def place(self) -> Path:
        """An output folder that does not exist yet."""
        self._calls += 1
        parent = self._folder / f"{self.name}_{self._calls}"
        parent.mkdir()
        return parent / "out"

    def call(self, output: Path) -> Callable[[], object]:
        return partial(self._task, self._folder, output)

    def differing(self, output: Path) -> int:
        """Repeats the command undisturbed, if it had not finished, and counts the bits that differ
        afterwards."""
        if not output.exists() or differing_bits(self.expected, left_behind(output)):
            run(self.call(output), output)
        return differing_bits(self.expected, left_behind(output))


def at_operations(command: Command, trials: int, rng: Rng) -> dict[str, Any]:
    """Every act at up to `trials` of the operations that the command makes."""
    operations = _operations_of(command)
    found: dict[str, Any] = {"operations": len(operations)}
    for act in ACTS:
        done = Trials()
        chosen = rng.choice(len(operations), min(trials, len(operations)), replace=False)
        for at in sorted(chosen.tolist()):
            output = command.place()
            status = _trapped(command, output, act, at)
            _count(done, status, output, f"{act} at {at}, {operations[at]}")
            done.differing_bits += command.differing(output)
        found[act] = vars(done)
    return found


def _operations_of(command: Command) -> list[str]:
    output = command.place()
    noted = output.parent / "operations.json"

    def call() -> None:
        trap = Trap(output.parent, "EIO", _NEVER)
        install(trap)
        command.call(output)()
        noted.write_text(json.dumps(trap.seen))

    run(call, output)
    seen: list[str] = json.loads(noted.read_text())
    return seen[: seen.index("open", len(seen) - 1)] if seen[-1] == "open" else seen


def _trapped(command: Command, output: Path, act: Act, at: int) -> int:
    def call() -> None:
        install(Trap(output.parent, act, at))
        command.call(output)()

    return outcome(start(call, _log(output)), output)


def _log(output: Path) -> Path:
    return output.with_name("out.log")


def _count(done: Trials, status: int, output: Path, how: str) -> None:
    """Notes how a call ended; InputError when it did otherwise than it may."""
    words = _log(output).read_text()
    if status not in (ENDED, REFUSED, KILLED) or "Traceback" in words:
        raise InputError(f"{output.parent.name}, {how}: status {status}\n{words[-3000:]}")
    done.trials += 1
    done.killed += status == KILLED
    done.refused += status == REFUSED
    done.ended += status == ENDED


def at_random(command: Command, kills: int, rng: Rng) -> dict[str, Any]:
    """Kills at random moments of the command, until there were `kills`; then its end."""
    done = Trials()
    while done.killed < kills:
        output, ended = command.place(), False
        while not ended:
            kill = None
            if done.killed < kills:
                kill = Kill(rng.uniform(0, _LATEST * command.length), while_saving=False)
            status = outcome(start(command.call(output), _log(output)), output, kill)
            _count(done, status, output, "killed at random")
            ended = status == ENDED
        done.differing_bits += differing_bits(command.expected, left_behind(output))
    return vars(done)


def two_writers(command: Command, pairs: int, rng: Rng) -> dict[str, int]:
    """Two calls on one folder, the second up to a call's length later: one writes, and the other is
    refused, or comes when the first has ended."""
    done = {"pairs": pairs, "both_ended": 0, "one_refused": 0, "both_refused": 0,
            "differing_bits": 0}  # fmt: skip
    for _ in range(pairs):
        output = command.place()
        logs = [output.with_name(f"out.{number}.log") for number in range(2)]
        first = start(command.call(output), logs[0])
        time.sleep(rng.uniform(0, 0.5 * command.length))
        second = start(command.call(output), logs[1])
        endings = [os.waitstatus_to_exitcode(os.waitpid(p, 0)[1]) for p in (first, second)]
        words = [log.read_text() for log in logs]
        if not set(endings) <= {ENDED, REFUSED} or any("Traceback" in text for text in words):
            raise InputError(f"{output.parent.name}: {endings}\n" + "\n".join(words))
        ended = endings.count(ENDED)
        done[("both_refused", "one_refused", "both_ended")[ended]] += 1
        if ended:
            done["differing_bits"] += differing_bits(command.expected, left_behind(output))
    return done


def frozen(command: Command, trials: int, rng: Rng) -> dict[str, Any]:
    """Calls that are stopped at a random moment (SIGSTOP), asked to end, and woken."""
    done = Trials()
    longest = 0.0
    for _ in range(trials):
        output = command.place()
        process = start(command.call(output), _log(output))
        time.sleep(rng.uniform(0, _LATEST * command.length))
        os.kill(process, signal.SIGSTOP)
        time.sleep(0.2)
        os.kill(process, signal.SIGTERM)
        os.kill(process, signal.SIGCONT)
        began = time.monotonic()
        status = ended_soon(process)
        longest = max(longest, time.monotonic() - began)
        stopped = status in (-signal.SIGTERM, 128 + signal.SIGTERM)
        _count(done, KILLED if stopped else status, output, "frozen")
        done.differing_bits += command.differing(output)
    return vars(done) | {"longest_seconds": round(longest, 1)}


def ended_soon(process: int) -> int:
    """The status of a process that has to end soon; InputError when it does not."""
    until = time.monotonic() + _LONGEST
    while time.monotonic() < until:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, signal.SIGKILL)
    raise InputError(f"a process that was asked to end had not ended after {_LONGEST:.0f} s")
