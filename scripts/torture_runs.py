"""Toy runs for `torture.py`: processes that are forked and killed, and what they leave behind."""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from trials import equip, kinds, small_mask2former
from uda.commands.endings import clear_errors
from uda.data.config import DomainConfig
from uda.experiment import Experiment
from uda.experiments import PRESETS, load_preset
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.fourier import FourierConfig
from uda.training.loop import train
from uda.utilities.errors import InputError
from uda.utilities.sealed_json import line_values, unsealed
from uda.utilities.weight_files import read_weights

SIZE = (64, 128)  # pixels (height, width) of every image
STEPS = 12
MASKS = "vaihingen_mask2former_r50"  # what classifies masks needs a network that makes some
ENDED, REFUSED, KILLED = 0, 2, -signal.SIGKILL  # as subprocess says it
# What tells of the clock, and what a digest is made of that.
# Times, and what has a path of its own: the files that a preset names, see uda/data/used_files.py.
_TIMES = ("images_per_second", "seconds", "command", "sha256", "named")
_OF_THE_WAY = (".lock", ".lock.owner", "resume.previous.pth")


class Kill(NamedTuple):
    """When a process is killed."""

    after: float  # seconds
    while_saving: bool  # then, only once a half-written file is there


def experiment_of(name: str) -> tuple[str, Experiment]:
    """The preset that objective `name` is tried in, and its name: the first one of the toy city, or
    one that `shrunk` brings there, that has the objective. Without one, the objective is added to
    "toy_source_only"."""
    kind = kinds()[name]
    for preset in (*(name for name in PRESETS if "toy_" in name), MASKS):
        experiment = load_preset(preset)
        if any(type(objective) is kind for objective in experiment.objectives.values()):
            return preset, experiment
    experiment = load_preset("toy_source_only")
    equip(
        experiment,
        experiment.objectives | {"objective": kind()},
        target=DomainConfig(datasets=("cityscapes",)),
        pseudo_labels=Path("pseudo_labels"),
    )
    return f"toy_source_only + {name}", experiment


def shrunk(name: str, folder: Path) -> Experiment:
    """A run of a few seconds with objective `name` that often writes and evaluates."""
    preset, experiment = experiment_of(name)
    data, settings = experiment.data, experiment.train
    data.root, data.crop = str(folder / "city"), SIZE
    data.workers = 1
    for domain in (data.source, data.target):
        if domain is not None:
            domain.size, domain.crop = SIZE, None
    if data.rare_classes is not None:
        data.rare_classes.min_pixels, data.rare_classes.min_crop_pixels = 500, 50
    if data.pseudo_labels is not None:
        data.pseudo_labels = str(folder / "pseudo_labels")
    if preset == MASKS:
        experiment.data.source = DomainConfig(datasets=("gta5",), size=SIZE)
        experiment.evaluation.dataset = "cityscapes"
    if experiment.model.has_queries:
        experiment.model = small_mask2former()
    elif isinstance(experiment.model, DeepLabV3PlusConfig):
        experiment.model = replace(
            experiment.model,
            backbone_width=8, aspp_channels=8, decoder_channels=8, low_level_channels=4,
        )  # fmt: skip
    for objective in experiment.objectives.values():
        objective.start_step = min(objective.start_step, STEPS // 4)
        if isinstance(objective, FourierConfig):
            objective.band = 0.05  # of a picture so small, 0.01 is less than one frequency
    settings.steps, settings.batch_size, settings.warmup_steps = STEPS, 2, 2
    settings.precision, settings.initial_snapshot = "float32", None
    settings.log_every, settings.resume_every, settings.snapshot_every = 1, 2, 5
    experiment.evaluation.every = 4
    return experiment


def train_shrunk(name: str, folder: Path, path: Path) -> None:
    """Starts the run of objective `name` in `path`, or goes on with it."""
    resume = any(path.glob("resume*.pth"))
    train(shrunk(name, folder), path, preset=name, device=torch.device("cpu"), resume=resume)


def start(do: Callable[[], object], log: Path) -> int:
    """Calls `do` in a process of its own, whose words go to `log`; the number of the process.

    It ends as a command does: with status 2 for what the user can mend."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        _be_the_process(do, log)
    return process


def _be_the_process(do: Callable[[], object], log: Path) -> NoReturn:
    """What the forked process does; nothing of its parent's is done twice."""
    status = 1
    try:
        words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(words, 1)
        os.dup2(words, 2)
        with clear_errors():
            do()
        status = 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def run(do: Callable[[], object], path: Path, kill: Kill | None = None) -> bool:
    """Starts or continues what writes into `path`; whether it came to its end.

    Raises InputError when it ended otherwise than by the kill.
    """
    log = path.with_name(f"{path.name}.log")
    status = outcome(start(do, log), path, kill)
    if status not in (ENDED, KILLED):
        raise InputError(f"{path.name} ended with status {status}: {log.read_text()[-1500:]}")
    return status == ENDED


def outcome(process: int, path: Path, kill: Kill | None = None) -> int:
    """Waits for the process to end, or kills it; its status."""
    started = time.monotonic()
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if (
            kill is not None
            and time.monotonic() - started >= kill.after
            and (not kill.while_saving or any(path.glob("*.partial")))
        ):
            os.kill(process, signal.SIGKILL)
            kill = None
        time.sleep(0.0002)


def left_behind(path: Path) -> dict[str, Any]:
    """All that a finished run says of what it computed: every leaf of its files by its place."""
    leaves: dict[str, Any] = {}
    for file in sorted(path.rglob("*")):
        name = file.relative_to(path).as_posix()
        if file.is_dir() or file.name in _OF_THE_WAY or "tensorboard" in name:
            continue
        if file.is_symlink():
            leaves[name] = file.resolve().name
        elif file.suffix == ".pth":
            content = read_weights(file, expected="weights", instead="train again")
            flattened(content, name, leaves)
        elif file.suffix == ".jsonl":
            for number, line in enumerate(file.read_text().splitlines()):
                flattened(line_values(line), f"{name}.{number}", leaves)
        elif file.suffix == ".json":
            flattened(unsealed(file.read_bytes()), name, leaves)
        elif file.suffix != ".html":  # the pages tell of times
            leaves[name] = file.read_bytes()
    own = str(path)
    return {n: v.replace(own, "") if isinstance(v, str) else v for n, v in leaves.items()}


def flattened(value: object, place: str, leaves: dict[str, Any]) -> None:
    """Adds every leaf of plain values to `leaves`, by its place below `place`."""
    if isinstance(value, dict):
        pairs = [(str(key), member) for key, member in value.items() if key not in _TIMES]
    elif isinstance(value, list | tuple):
        pairs = [(str(index), member) for index, member in enumerate(value)]
    else:
        leaves[place] = value
        return
    for key, member in pairs:
        flattened(member, f"{place}.{key}", leaves)


def differing_bits(one: dict[str, Any], two: dict[str, Any]) -> int:
    """How many bits differ; all of those of a leaf that only one has, or has in another shape."""
    return sum(_bits(one.get(place), two.get(place)) for place in one.keys() | two.keys())


def _bits(one: object, two: object) -> int:
    left, right = _as_bits(one), _as_bits(two)
    if left.shape != right.shape or type(one) is not type(two):
        return max(left.size, right.size, 1)
    return int(np.count_nonzero(left != right))


def _as_bits(value: object) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if isinstance(value, Tensor):
        plain = np.ascontiguousarray(value.detach().cpu().contiguous().numpy())
        return np.unpackbits(np.frombuffer(plain.tobytes(), np.uint8))
    return np.unpackbits(np.frombuffer(repr(value).encode(), np.uint8))
