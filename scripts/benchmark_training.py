"""Training steps, ours and the plain way in turns: every round of each is a process of its own."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmark_report import Figure, Row
from benchmark_step import DOES_NOT_FIT, PRESETS, Round, Way
from uda.errors import InputError

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


def _in_own_process(
    preset: str, way: Way, device: torch.device, batch_size: int, quick: bool
) -> Round:
    """A round; MemoryError when the device has too little for it, InputError when it fails."""
    program = [sys.executable, str(_PROGRAM), preset, way, *(["--quick"] if quick else [])]
    done = subprocess.run(
        [*program, "--device", str(device), "--batch-size", str(batch_size),
         "--started", str(time.monotonic())],
        check=False, capture_output=True, text=True,
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
            meaning="source and target images per second of `uda.engine.train_step` (bfloat16 "
            "autocast, channels last, a backward for each view), and of the same losses in "
            "float32, channels first, with one backward for all views.",
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
