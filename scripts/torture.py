"""Kills toy runs with SIGKILL at random moments, resumes them, and compares them bit by bit.

For every objective of the library a run is made undisturbed, and once more by processes that are
killed at random moments of the whole life of a run: while it starts, makes steps, writes files,
evaluates. `make torture` writes docs/torture.json. Processes are forked from this one, which has
imported what they need and computed nothing, so that a kill costs no start of Python.
"""

import argparse
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch
from torch import Tensor

from trials import equip, kinds, small_mask2former, write_random_pseudo_labels
from uda.checkpoints import snapshots
from uda.commands.endings import clear_errors
from uda.commands.options import at_least
from uda.data.config import DomainConfig
from uda.data.registry import list_dataset
from uda.data.toy_city.city import write_toy_city
from uda.experiment import Experiment
from uda.experiments import PRESETS, load_preset
from uda.labels.spaces import CITYSCAPES
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.fourier import FourierConfig
from uda.training.loop import train
from uda.utilities.errors import InputError

SIZE = (64, 128)  # pixels (height, width) of every image
STEPS = 12
MASKS = "vaihingen_mask2former_r50"  # what classifies masks needs a network that makes some
ENDED, KILLED = 0, -signal.SIGKILL  # as subprocess says it
# Of the length of an undisturbed run: a process that ends before its kill comes is none.
LATEST_KILL = 0.9


@dataclass
class Figures:
    """What became of the runs of one objective."""

    preset: str
    runs: int = 0  # that were killed and resumed until they came to their end
    kills: int = 0
    kills_while_saving: int = 0  # a half-written file was left
    resumed: int = 0  # processes that resumed from a resume.pth; the others started over
    differing_bits: int = 0  # of all files of all runs, to those of the undisturbed run


class Kill(NamedTuple):
    """When a process is killed."""

    after: float  # seconds
    while_saving: bool  # then, only once a half-written file is there


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=at_least(1), default=12, help="at least, per objective")
    parser.add_argument("--only", nargs="+", choices=sorted(kinds()), metavar="OBJECTIVE")
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the moments of the kills")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with clear_errors(), tempfile.TemporaryDirectory() as folder:
        found = torture(
            Path(folder), options.only or sorted(kinds()), kills=options.kills, seed=options.seed
        )
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{found['kills']} kills, {found['differing_bits']} differing bits")
    sys.exit(1 if found["differing_bits"] else 0)


def torture(folder: Path, names: Sequence[str], *, kills: int, seed: int) -> dict[str, Any]:
    """The figures of each objective and their sums; `folder` takes data and runs."""
    write_toy_city(
        folder / "city", source_images=6, target_images=6, validation_images=3, size=SIZE
    )
    target = list_dataset(folder / "city", "cityscapes", "train", labeled=False)
    write_random_pseudo_labels(folder / "pseudo_labels", target, CITYSCAPES)
    rng = np.random.default_rng(seed)
    found = {}
    for name in names:
        started = time.monotonic()
        found[name] = torture_one(folder, name, kills=kills, rng=rng)
        print(f"{name}: {found[name]} in {time.monotonic() - started:.0f} s", flush=True)
    return {
        "kills": sum(one.kills for one in found.values()),
        "differing_bits": sum(one.differing_bits for one in found.values()),
        "seed": seed,
        "steps": STEPS,
        "objectives": {name: asdict(one) for name, one in found.items()},
        "versions": snapshots.versions(),
    }


def torture_one(folder: Path, name: str, *, kills: int, rng: np.random.Generator) -> Figures:
    """Runs of one objective, each to its end, until they have been killed `kills` times."""
    done = Figures(preset=experiment_of(name)[0])
    undisturbed = folder / f"{name}_undisturbed"
    started = time.monotonic()
    run(folder, name, undisturbed)
    length = time.monotonic() - started
    expected = left_behind(undisturbed)
    while done.kills < kills:
        disturbed = folder / f"{name}_{done.runs}"
        ended = False
        while not ended:
            done.resumed += any(disturbed.glob("resume*.pth"))
            kill = None
            if done.kills < kills:
                kill = Kill(rng.uniform(0, LATEST_KILL * length), while_saving=rng.random() < 0.5)
            ended = run(folder, name, disturbed, kill)
            done.kills += not ended
            done.kills_while_saving += not ended and any(disturbed.glob("*.partial"))
        done.runs += 1
        done.differing_bits += differing_bits(expected, left_behind(disturbed))
    return done


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


def run(folder: Path, name: str, path: Path, kill: Kill | None = None) -> bool:
    """Starts or resumes the run in `path` in a process of its own; whether it came to its end.

    Raises InputError when it ended otherwise than by the kill.
    """
    log = path.with_suffix(".log")
    process = os.fork()
    if process == 0:
        _be_the_run(folder, name, path, log)
    status = _outcome(process, path, kill)
    if status not in (ENDED, KILLED):
        raise InputError(f"a run of {name} ended with status {status}: {log.read_text()[-500:]}")
    return status == ENDED


def _be_the_run(folder: Path, name: str, path: Path, log: Path) -> NoReturn:
    """What the forked process does; nothing of its parent's is done twice."""
    status = 1
    try:
        words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(words, 1)
        os.dup2(words, 2)
        resume = any(path.glob("resume*.pth"))
        train(shrunk(name, folder), path, preset=name, device=torch.device("cpu"), resume=resume)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def _outcome(process: int, path: Path, kill: Kill | None) -> int:
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
    for file in sorted(path.glob("*.pth")):
        if file.name != "resume.previous.pth":
            _flatten(snapshots.read(file), file.name, leaves)
    for number, line in enumerate((path / "metrics.jsonl").read_text().splitlines()):
        entry = json.loads(line)
        entry.pop("images_per_second", None)
        _flatten(entry, f"metrics.{number}", leaves)
    return leaves


def _flatten(value: object, place: str, leaves: dict[str, Any]) -> None:
    if isinstance(value, dict):
        pairs = [(str(key), member) for key, member in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(str(index), member) for index, member in enumerate(value)]
    else:
        leaves[place] = value
        return
    for key, member in pairs:
        _flatten(member, f"{place}.{key}", leaves)


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


if __name__ == "__main__":
    main()
