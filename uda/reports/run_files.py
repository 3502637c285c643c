"""What a run's folder says of it: facts, scores of its last scored snapshot, selections."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

from uda.checkpoints import snapshots
from uda.checkpoints.snapshots import Snapshot
from uda.experiments.published import Published, published
from uda.labels.spaces import LabelSpace
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import LARGE, read_bytes
from uda.utilities.schema import fault
from uda.utilities.sealed_json import unsealed

NOT_SCORED = "not scored: uda eval --restore-from FILE scores a snapshot"
Number = float | int


class _Choice(TypedDict):
    """A row of summary.json."""

    way: str
    step: int
    miou: Number | None
    criterion: Number | None
    snapshot: str | None


class _Scores(TypedDict):
    """What a report needs of a snapshot's scores, or of scores.json."""

    miou: Number | None
    per_class: dict[str, Number | None]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run says of itself, as plain values."""

    name: str
    facts: dict[str, str]
    protocol: str  # with data set and split
    step: int | None
    miou: float | None  # percent
    per_class: dict[str, float | None]  # percent; None: absent
    published: Published | None
    selections: list[dict[str, Any]] = field(default_factory=list)  # of summary.json


@dataclass(frozen=True, slots=True)
class FoundRun:
    """A run with all that a page shows of it."""

    run: Run
    folder: Path
    snapshot: Path | None  # the file that the facts are from
    experiment: Mapping[str, Any]  # the resolved preset; empty without a snapshot
    label_space: LabelSpace | None


def folder_of(given: Path) -> Path:
    """The folder `given`, or the one of this name below snapshots/; InputError if there is none."""
    folder = given if given.is_dir() else Path("snapshots") / given
    require(folder.is_dir(), f"{given} is not a folder of a run: give one such as snapshots/RUN")
    return folder


def find_run(given: Path) -> FoundRun:
    """The run in the folder `given`, or in the one of this name below snapshots/.

    Facts are those of the last scored snapshot or, where none was scored, of the last one. Raises
    InputError when there is none.
    """
    folder = folder_of(given)
    path, snapshot = None, None
    scored = folder / "scores.json"  # of a preset of 0 steps
    if scored.is_file():
        facts, scores, preset = _of_file(scored)
    else:
        path, snapshot = _last(folder)
        facts, preset = _facts(snapshot), snapshot.preset
        scores = snapshot.scores or {}
    wrong = fault(scores, _Scores, "its score") if scores else ""
    require(not wrong, f"{path or scored} is damaged ({wrong}): score it again with uda eval")
    protocol = str(scores.get("protocol", "unknown" if scores else NOT_SCORED))
    step = int(facts["step"]) if facts["step"].isdigit() else None
    run = Run(
        name=str(given).removeprefix("snapshots/"),
        facts=facts,
        protocol=protocol,
        step=step,
        miou=scores.get("miou"),
        per_class=scores.get("per_class", {}),
        published=_published(preset, step, protocol),
        selections=_selections(folder / "summary.json"),
    )
    experiment = {} if snapshot is None else snapshot.experiment
    space = None if snapshot is None else snapshot.label_space
    return FoundRun(run, folder, path, experiment, space)


def snapshots_of(folder: Path) -> list[Path]:
    """The snapshots in a run's folder, the newest first."""
    found = (path for path in folder.glob("*_*.pth") if path.stem.rpartition("_")[2].isdigit())
    return sorted(found, key=lambda path: int(path.stem.rpartition("_")[2]), reverse=True)


def _last(folder: Path) -> tuple[Path, Snapshot]:
    """The last snapshot that was scored, else the last one."""
    last = None
    for path in snapshots_of(folder):
        found = snapshots.load(path)
        if found.scores is not None:
            return path, found
        last = last or (path, found)
    if last is None:
        raise InputError(
            f"{folder} has no snapshot: wait until the run has saved one, or give another run"
        )
    return last


def _facts(found: Snapshot) -> dict[str, str]:
    train = found.experiment["train"]
    return {
        "preset": found.preset,
        "seed": str(train["seed"]),
        "step": str(found.step),
        "of steps": str(train["steps"]),
        "network": found.model.title,
        "initial weights": found.initial_weights,
        "supervision": found.supervision,
        "versions": ", ".join(f"{name} {v}" for name, v in found.versions.items()),
    }


def _of_file(path: Path) -> tuple[dict[str, str], dict[str, Any], str]:
    """The same of a scores.json."""
    try:
        content = unsealed(read_bytes(path, LARGE))
        names = {"preset": "preset", "snapshot": "initial weights", "supervision": "supervision"}
        facts = {"step": "0"} | {said: str(content[name]) for name, said in names.items()}
        assert isinstance(content["per_class"], dict)
        return facts, content, str(content["preset"])
    except (OSError, ValueError, KeyError, TypeError, AssertionError, RecursionError) as error:
        raise InputError(f"{path} is damaged ({shown(error)}): train the run again") from None


def _selections(path: Path) -> list[dict[str, Any]]:
    """The rows of summary.json; none where the run did not come to its end."""
    if not path.is_file():
        return []
    try:
        found = unsealed(read_bytes(path, LARGE))["selection"]
        if wrong := fault(found, list[_Choice], "selection"):
            raise ValueError(wrong)
        return [{name: row[name] for name in _Choice.__annotations__} for row in found]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is damaged ({shown(error)}): remove it, the report needs no selections"
        ) from None


def _published(preset: str, step: int | None, protocol: str) -> Published | None:
    """The published number of the preset, if it is one for the data set and split scored here."""
    entry = published(preset, step)
    same = entry is not None and f" on {entry.dataset} {entry.split}:" in protocol
    return entry if same else None
