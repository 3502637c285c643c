"""Runs of two processes, one of which is killed, for `torture.py`."""

import os
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from torture_parts import Trials, ended_soon
from torture_runs import ENDED, KILLED, REFUSED, differing_bits, left_behind, start
from torture_tasks import train_rank
from uda.utilities.errors import InputError

_LATEST = 0.9  # of the length of an undisturbed run


def one_of_two_killed(folder: Path, kills: int, rng: np.random.Generator) -> dict[str, Any]:
    """Kills one of two processes, in turns, at random moments: the other one ends, with one line,
    and the run goes on from what it saved."""
    done, longest = Trials(), 0.0
    began = time.monotonic()
    _end(_started(folder, folder / "ranks"))
    length = time.monotonic() - began
    expected = left_behind(folder / "ranks")
    for number in range(kills):
        output = folder / f"ranks_{number}"
        processes = _started(folder, output)
        time.sleep(rng.uniform(0, _LATEST * length))
        killed = processes.pop(number % 2)
        os.kill(killed, signal.SIGKILL)
        began = time.monotonic()
        done.killed += os.waitstatus_to_exitcode(os.waitpid(killed, 0)[1]) == KILLED
        status = ended_soon(processes[0])
        longest = max(longest, time.monotonic() - began)
        done.trials += 1
        done.ended += status == ENDED
        done.refused += status == REFUSED
        words = _words(output)
        if status not in (ENDED, REFUSED) or "Traceback" in words:
            raise InputError(f"{output.name}: the other ended with {status}\n{words[-3000:]}")
        _end(_started(folder, output))
        done.differing_bits += differing_bits(expected, left_behind(output))
    return vars(done) | {"longest_seconds": round(longest, 1)}


def _started(folder: Path, output: Path) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        start(partial(train_rank, rank, port, folder, output), _log(output, rank))
        for rank in range(2)
    ]


def _end(processes: list[int]) -> None:
    endings = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
    if endings != [ENDED, ENDED]:
        raise InputError(f"two undisturbed processes ended with {endings}")


def _log(output: Path, rank: int) -> Path:
    return output.with_name(f"{output.name}.{rank}.log")


def _words(output: Path) -> str:
    return "".join(_log(output, rank).read_text() for rank in range(2))
