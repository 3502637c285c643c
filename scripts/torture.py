"""Disturbs toy runs and commands in every way, repeats them, and compares the results bit by bit.

kills: for every objective of the library a run is made undisturbed, and once more by processes that
are killed at random moments of the whole life of a run. operations, random, writers, frozen: every
command that writes a folder is killed right before or after chosen file-system operations, or these
fail (EIO, ENOSPC, EACCES); killed at random moments; called twice at once; stopped, asked to end
and woken. ranks: one of a run's two processes is killed. bits: one is flipped in every kind of
file. `make torture` writes docs/torture.json. Processes are forked from this one, which has
imported what they need and computed nothing, so that a kill costs no start of Python.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from torture_bits import flip_bits
from torture_parts import Command, at_operations, at_random, frozen, two_writers
from torture_ranks import one_of_two_killed
from torture_runs import (
    STEPS,
    Kill,
    differing_bits,
    experiment_of,
    left_behind,
    run,
    train_shrunk,
)
from torture_tasks import TASKS, prepare
from trials import kinds
from uda.checkpoints import snapshots
from uda.commands.endings import clear_errors
from uda.commands.options import at_least
from uda.utilities.atomic_files import replacing

# Of the length of an undisturbed run: a process that ends before its kill comes is none.
LATEST_KILL = 0.9
OF_COMMANDS: dict[str, Callable[[Command, int, np.random.Generator], dict[str, Any]]] = {
    "operations": at_operations, "random": at_random, "writers": two_writers, "frozen": frozen
}  # fmt: skip
PARTS = ("kills", *OF_COMMANDS, "ranks", "bits")
_FLIPS = 50  # bits of each kind of file, for each trial of the other parts


@dataclass
class Figures:
    """What became of the runs of one objective."""

    preset: str
    runs: int = 0  # that were killed and resumed until they came to their end
    kills: int = 0
    kills_while_saving: int = 0  # a half-written file was left
    resumed: int = 0  # processes that resumed from a resume.pth; the others started over
    differing_bits: int = 0  # of all files of all runs, to those of the undisturbed run


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="default: all")
    parser.add_argument("--kills", type=at_least(1), default=12, help="at least, per objective")
    parser.add_argument(
        "--trials", type=at_least(1), default=3, help="of each kind, per command (default: 3)"
    )
    parser.add_argument("--only", nargs="+", choices=sorted(kinds()), metavar="OBJECTIVE")
    parser.add_argument("--commands", nargs="+", choices=TASKS, default=tuple(TASKS))
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the moments of the kills")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with clear_errors(), tempfile.TemporaryDirectory() as folder:
        found = torture(Path(folder), options)
        if options.json is not None:
            with replacing(options.json) as file:
                file.write(json.dumps(found, indent=2).encode() + b"\n")
    print(
        f"{found['kills']} kills, {found['differing_bits']} differing bits, "
        f"{found['silent']} flipped bits not noticed"
    )
    sys.exit(1 if found["differing_bits"] or found["silent"] else 0)


def torture(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The figures of each part and their sums; `folder` takes data and runs."""
    os.environ["UDA_CACHE"] = str(folder / "cache")
    rng = np.random.default_rng(options.seed)
    prepare(folder, trained=set(options.parts) != {"kills"})
    found: dict[str, Any] = {}
    if "kills" in options.parts:
        found["objectives"] = {}
        for name in options.only or sorted(kinds()):
            one = _told(name, partial(torture_one, folder, name, kills=options.kills, rng=rng))
            found["objectives"][name] = asdict(one)
    parts = [part for part in OF_COMMANDS if part in options.parts]
    names = tuple(TASKS) if "bits" in options.parts else options.commands if parts else ()
    for name in names:
        command = Command(folder, name)
        for part in parts if name in options.commands else ():
            call = partial(OF_COMMANDS[part], command, options.trials, rng)
            found.setdefault(part, {})[name] = _told(f"{part}: {name}", call)
    if "ranks" in options.parts:
        ranks = partial(one_of_two_killed, folder, options.trials, rng)
        found["ranks"] = _told("ranks", ranks)
    if "bits" in options.parts:
        flips = _FLIPS * options.trials
        found["bits"] = _told("bits", lambda: flip_bits(folder, flips, rng))
    sums = {
        "kills": sum(_every(found, "kills")) + sum(_every(found, "killed")),
        "differing_bits": sum(_every(found, "differing_bits")),
        "flipped_bits": sum(_every(found, "flips")),
        "silent": sum(_every(found, "silent")),
        "seed": options.seed,
        "steps": STEPS,
    }
    return sums | found | {"versions": snapshots.versions()}


def _told(what: str, call: Callable[[], Any]) -> Any:  # noqa: ANN401
    """What `call` returns, once it was printed."""
    started = time.monotonic()
    found = call()
    print(f"{what}: {found} in {time.monotonic() - started:.0f} s", flush=True)
    return found


def _every(found: dict[str, Any], name: str) -> Iterator[int]:
    """The numbers called `name` in nested figures."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from _every(value, name)
        elif key == name:
            yield value


def torture_one(folder: Path, name: str, *, kills: int, rng: np.random.Generator) -> Figures:
    """Runs of one objective, each to its end, until they have been killed `kills` times."""
    done = Figures(preset=experiment_of(name)[0])
    undisturbed = folder / f"{name}_undisturbed"
    started = time.monotonic()
    run(partial(train_shrunk, name, folder, undisturbed), undisturbed)
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
            ended = run(partial(train_shrunk, name, folder, disturbed), disturbed, kill)
            done.kills += not ended
            done.kills_while_saving += not ended and any(disturbed.glob("*.partial"))
        done.runs += 1
        done.differing_bits += differing_bits(expected, left_behind(disturbed))
    return done


if __name__ == "__main__":
    main()
