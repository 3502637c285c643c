"""Training steps in turns, ours and a plain loop, one process and two; each round starts over."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import torch

from benchmark_report import Figure, Row
from benchmark_step import DOES_NOT_FIT, PRESETS, Step, Way
from uda.utilities.errors import InputError

_PROGRAM = Path(__file__).with_name("benchmark_step.py")
_STARTS = 3  # pairs of processes that share the rounds; memory and the first step are one each


class Process:
    """A process that takes a step when it is told to. MemoryError when the device has too little
    for it, InputError when it fails."""

    def __init__(
        self, preset: str, way: Way, *, device: torch.device, batch_size: int, quick: bool,
        processes: int = 1,
    ) -> None:  # fmt: skip
        self.title = f"a training step of {preset}, {way},"
        launcher, threads = [sys.executable], torch.get_num_threads()
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone"]
            launcher += ["--nproc-per-node", str(processes), "--"]
            threads = max(1, threads // processes)
        program = [*launcher, str(_PROGRAM), preset, way, *(["--quick"] if quick else [])]
        self._process = subprocess.Popen(
            [*program, "--device", device.type if processes > 1 else str(device),
             "--batch-size", str(batch_size), "--started", str(time.monotonic())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
        self.first = self._next()
        self.step()  # the optimizers make their averages, and memory is had once

    def step(self) -> Step:
        """What another step takes."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._next()

    def _next(self) -> Step:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if line:
            return Step(**json.loads(line))
        said, status = self._process.communicate()[1], self._process.returncode
        if status == DOES_NOT_FIT:
            raise MemoryError
        reason = (said.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"{self.title} failed: {reason}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # it ends when it reads nothing more


def measure_training(
    *, device: torch.device, rounds: int, quick: bool, say: Callable[[str], None]
) -> list[Row | Figure]:
    """The rows of each preset; on CUDA, of larger batches, too, as far as both ways fit."""
    found: list[Row | Figure] = []
    for preset in PRESETS:
        for batch_size in (2, 4, 8) if device.type == "cuda" else (2,):
            title = f"{preset}, batch {batch_size}"
            plain, ours = Measured(), Measured()
            try:
                for share in _shares(rounds):
                    say(f"training {title}, {share} rounds")
                    made = partial(
                        Process, preset, device=device, batch_size=batch_size, quick=quick
                    )
                    with made("plain") as one, made("ours") as other:
                        for _ in range(share):
                            plain.steps.append(one.step())
                            ours.steps.append(other.step())
                        plain.firsts.append(one.first)
                        ours.firsts.append(other.first)
                    plain.peaks.append(plain.steps[-1].peak)
                    ours.peaks.append(ours.steps[-1].peak)
            except MemoryError:
                say(f"training {title}: does not fit the device, left out")
                continue
            found += _rows(title, batch_size, plain, ours)
    return found


def measure_processes(
    *, device: torch.device, rounds: int, quick: bool, say: Callable[[str], None]
) -> list[Row | Figure]:
    """Two processes and one: on a CPU with half of its threads each, on CUDA with a GPU each."""
    preset, batch_size = PRESETS[0], 2
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        say("processes: there is one GPU, left out")
        return []
    say("processes")
    made = partial(Process, preset, "ours", device=device, batch_size=batch_size, quick=quick)
    with made() as alone, made(processes=2) as both:
        taken = [(alone.step(), both.step()) for _ in range(rounds)]
    return [
        Row(
            name="two processes",
            case=f"{preset}, batch {batch_size}",
            unit="images/s",
            reference=[2 * batch_size / one.seconds for one, _ in taken],
            ours=[2 * batch_size / two.seconds for _, two in taken],
            meaning="the same step by `torchrun --nproc-per-node 2`, batch norm synchronized, and "
            "by one process. On a CPU both have the same threads together, so that 1 would be no "
            "loss; on CUDA two processes have two GPUs, and 2 would be none.",
        )
    ]


@dataclass(kw_only=True, slots=True)
class Measured:
    """What one way has taken."""

    steps: list[Step] = field(default_factory=list)  # one for each round
    firsts: list[Step] = field(default_factory=list)  # the first of each process
    peaks: list[int] = field(default_factory=list)  # bytes, of each process


def _shares(rounds: int) -> list[int]:
    """The rounds of each pair of processes."""
    starts = min(_STARTS, rounds)
    return [len(range(start, rounds, starts)) for start in range(starts)]


def _rows(title: str, batch_size: int, plain: Measured, ours: Measured) -> list[Row | Figure]:
    """Of one preset at one batch size; an image of each domain counts once."""
    return [
        Row(
            name="training step",
            case=title,
            unit="images/s",
            reference=[2 * batch_size / one.seconds for one in plain.steps],
            ours=[2 * batch_size / one.seconds for one in ours.steps],
            target=1.9,
            meaning="source and target images per second of `uda.training.step.train_step` in "
            "the preset's precision (DAFormer's is float32, the others' bfloat16), and of the "
            "same step as one writes it first (scripts/benchmark_plain.py): float32, channels "
            "first, losses of whole maps.",
        ),
        Row(
            name="work of a step",
            case=title,
            unit="core seconds",
            reference=[one.work for one in plain.steps],
            ours=[one.work for one in ours.steps],
            meaning="time of all cores for the same steps, which other programs lengthen less.",
        ),
        Row(
            name="peak memory",
            case=title,
            unit="GiB",
            reference=[peak / 2**30 for peak in plain.peaks],
            ours=[peak / 2**30 for peak in ours.peaks],
            target=0.45,
            at_most=True,
            meaning="what the same steps take at most, one value for each process: on a CPU, "
            "resident memory beyond that before the first step; on CUDA, all that was allocated.",
        ),
        Row(
            name="time to first step",
            case=title,
            unit="s",
            reference=[one.seconds for one in plain.firsts],
            ours=[one.seconds for one in ours.firsts],
            meaning="from the start of a process to the end of its first step, one value for each "
            "process.",
        ),
        Figure(
            name="outside the network",
            case=title,
            unit="share",
            rounds=[one.outside for one in ours.steps if one.outside is not None],
            meaning="share of our step that is neither forward nor backward of the student: "
            "losses, discriminators, the teacher, optimizers.",
        ),
    ]
