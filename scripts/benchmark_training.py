"""Training steps in turns, ours and a plain loop, one process and two; each round starts over."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmark_report import Figure, Row
from benchmark_step import DOES_NOT_FIT, PRESETS, Round, Way
from uda.utilities.errors import InputError

_PROGRAM = Path(__file__).with_name("benchmark_step.py")


def measure_training(
    *, device: torch.device, rounds: int, quick: bool, say: Callable[[str], None]
) -> list[Row | Figure]:
    """The rows of each preset; on CUDA, of larger batches, too, as far as both ways fit."""
    found: list[Row | Figure] = []
    for preset in PRESETS:
        for batch_size in (2, 4, 8) if device.type == "cuda" else (2,):
            title = f"{preset}, batch {batch_size}"
            measured: dict[Way, list[Round]] = {"plain": [], "ours": []}
            try:
                for number in range(rounds):
                    for way, results in measured.items():
                        say(f"training {title}, {way}, round {number + 1}")
                        results.append(_in_own_process(preset, way, device, batch_size, quick))
            except MemoryError:
                say(f"training {title}: does not fit the device, left out")
                continue
            found += _rows(title, batch_size, measured["plain"], measured["ours"])
    return found


def measure_processes(
    *, device: torch.device, rounds: int, quick: bool, say: Callable[[str], None]
) -> list[Row | Figure]:
    """Two processes and one: on a CPU with half of its threads each, on CUDA with a GPU each."""
    preset, batch_size = PRESETS[0], 2
    if device.type == "cuda" and torch.cuda.device_count() < 2:
        say("processes: there is one GPU, left out")
        return []
    one, two = [], []
    for number in range(rounds):
        say(f"processes, round {number + 1}")
        one.append(_in_own_process(preset, "ours", device, batch_size, quick))
        two.append(_in_own_process(preset, "ours", device, batch_size, quick, processes=2))
    return [
        Row(
            name="two processes",
            case=f"{preset}, batch {batch_size}",
            unit="images/s",
            reference=[2 * batch_size / round_.step for round_ in one],
            ours=[2 * batch_size / round_.step for round_ in two],
            meaning="the same step by `torchrun --nproc-per-node 2`, batch norm synchronized, and "
            "by one process. On a CPU both have the same threads together, so that 1 would be no "
            "loss; on CUDA two processes have two GPUs, and 2 would be none.",
        )
    ]


def _in_own_process(
    preset: str,
    way: Way,
    device: torch.device,
    batch_size: int,
    quick: bool,
    *,
    processes: int = 1,
) -> Round:
    """A round; MemoryError when the device has too little for it, InputError when it fails."""
    launcher, threads = [sys.executable], torch.get_num_threads()
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes), "--"]
        threads = max(1, threads // processes)
    program = [*launcher, str(_PROGRAM), preset, way, *(["--quick"] if quick else [])]
    done = subprocess.run(
        [*program, "--device", device.type if processes > 1 else str(device),
         "--batch-size", str(batch_size), "--started", str(time.monotonic())],
        check=False, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )  # fmt: skip
    if done.returncode == DOES_NOT_FIT:
        raise MemoryError
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise InputError(f"a training step of {preset}, {way}, failed: {reason}")
    values: dict[str, Any] = json.loads(done.stdout)
    return Round(**values)


def _rows(title: str, batch_size: int, plain: list[Round], ours: list[Round]) -> list[Row | Figure]:
    """Of one preset at one batch size; an image of each domain counts once."""
    return [
        Row(
            name="training step",
            case=title,
            unit="images/s",
            reference=[2 * batch_size / one.step for one in plain],
            ours=[2 * batch_size / one.step for one in ours],
            target=1.9,
            meaning="source and target images per second of `uda.training.step.train_step` "
            "(bfloat16 autocast, channels last, a backward for each view), and of the same losses "
            "in float32, channels first, with one backward for all views.",
        ),
        Row(
            name="peak memory",
            case=title,
            unit="GiB",
            reference=[one.peak / 2**30 for one in plain],
            ours=[one.peak / 2**30 for one in ours],
            target=0.5,
            at_most=True,
            meaning="what the same steps take at most: on a CPU, resident memory beyond that "
            "before the first step; on CUDA, all that was allocated.",
        ),
        Row(
            name="time to first step",
            case=title,
            unit="s",
            reference=[one.first_step for one in plain],
            ours=[one.first_step for one in ours],
            meaning="from the start of a process to the end of its first step.",
        ),
        Figure(
            name="outside the network",
            case=title,
            unit="share",
            rounds=[one.outside for one in ours if one.outside is not None],
            meaning="share of our step that is neither forward nor backward of the student: "
            "losses, discriminators, optimizers.",
        ),
    ]
