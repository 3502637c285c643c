"""Stands in for the commands of the ladder, and leaves no changed preset behind."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import ladder
import ladder_digests
import ladder_figures
from factories import tiny_snapshot
from uda.checkpoints.snapshots import save, snapshot_values
from uda.experiment import validate
from uda.experiments import load_preset
from uda.utilities.config_tree import to_plain


def clear_digests() -> None:
    ladder_digests.digest_of.cache_clear()
    ladder_digests._resolved.cache_clear()


def figures() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path("experiments/toy_ladder.json").read_text())
    return found


class Commands:
    """Stands in for `ladder.command`: leaves what the commands would leave, in no time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, ...]] = []

    def __call__(self, log: str, script: str, *arguments: str) -> None:
        self.calls.append((script, *arguments))
        option = dict(pairwise(arguments))
        if script == "train_uda.py":
            folder = Path("snapshots") / option["--run"]
            folder.mkdir(parents=True)  # as a run that finds a former one would, it refuses
            miou = {"toy_source_only": 30.004}.get(option["--preset"], 20.0)
            miou += int(folder.name[-1])
            snapshot = tiny_snapshot(load_preset(option["--preset"]))
            snapshot.experiment = to_plain(validate(load_preset(option["--preset"])).experiment)
            if (root := option["--set"].removeprefix("data.root=")) != option["--set"]:
                snapshot.experiment["data"]["root"] = root
            scores = {"miou": miou, "per_class": {"road": 80.004, "bicycle": miou}}
            path = folder / "GTA5_500.pth"
            save(snapshot_values(replace(snapshot, scores=scores)), path)
        elif script == "eval_single.py":
            scores = {"miou": 41.996, "per_class": {"road": 60.0, "bicycle": 24.0}}
            Path(option["--json"]).write_text(json.dumps({"supervision": "none"} | scores))
        elif "train-translation" in arguments:
            folder = Path("snapshots") / option["--run"]
            folder.mkdir()
            for step in (800, 1600):
                (folder / f"translation_{step}.pth").touch()
        elif "--output" in option:
            Path(option["--output"]).mkdir()

    def scripts(self) -> list[str]:
        return [call[0] for call in self.calls]


@contextmanager
def stand_in(folder: Path) -> Iterator[Commands]:
    """In an empty folder, where nothing is trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        commands = Commands()
        patch.setattr(ladder, "command", commands)
        patch.setattr(ladder_figures, "draw", lambda *_: None)  # which takes a second
        yield commands
    clear_digests()
