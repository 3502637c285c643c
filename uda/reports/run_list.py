"""All runs below a folder: state, step, score and supervision, without loading their networks."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from uda.checkpoints.stored import FORMAT
from uda.reports.run_files import snapshots_of
from uda.reports.run_log import NAME as LOG
from uda.utilities.locks import LOCK, is_written
from uda.utilities.reading import LARGE, opened, read_bytes
from uda.utilities.sealed_json import line_values, unsealed
from uda.utilities.torch_archives import values_without_tensors

_TAIL = 2**18  # bytes of a log that are read: the last evaluation is among them, mostly
_DEEPEST = 4  # folders below the one that is listed


@dataclass(frozen=True, slots=True)
class ListedRun:
    """A row of the list; None where the run's files do not say."""

    name: str  # below the listed folder
    state: str  # "running", "finished" or "stopped"
    step: int | None
    steps: int | None
    miou: float | None  # percent, of the last evaluation
    supervision: str | None
    preset: str | None
    seed: int | None


def listed_runs(folder: Path) -> Iterator[ListedRun]:
    """The runs below `folder`, by name."""
    for path in _run_folders(folder):
        stored = _stored(path)
        log = _tail(path / LOG)
        train = stored.get("experiment", {}).get("train", {})
        steps = train.get("steps")
        recorded = [line["step"] for line in log if isinstance(line.get("step"), int)]
        recorded += [stored["step"]] if "step" in stored else []
        step = max(recorded, default=None)
        scores = [line["miou"] for line in log if isinstance(line.get("miou"), float)]
        miou = 100 * scores[-1] if scores else _scored(path, stored)
        finished = (path / "scores.json").is_file() or (steps is not None and step == steps)
        yield ListedRun(
            name=path.relative_to(folder).as_posix(),
            state="running" if is_written(path) else "finished" if finished else "stopped",
            step=step,
            steps=steps,
            miou=miou,
            supervision=stored.get("supervision"),
            preset=stored.get("preset"),
            seed=train.get("seed"),
        )


def _run_folders(folder: Path) -> Iterator[Path]:
    """Folders that a run writes or has written, sorted; what is in one of them is not searched."""
    deepest = len(folder.parts) + _DEEPEST
    for place, folders, files in os.walk(folder):
        path = Path(place)
        folders.sort()
        is_run = {LOCK, LOG, "scores.json", "resume.pth"} & set(files)
        if path != folder and (is_run or snapshots_of(path)):
            yield path
        if is_run or len(path.parts) >= deepest:
            folders.clear()


def _stored(folder: Path) -> Mapping[str, Any]:
    """What the newest snapshot says besides its weights, which stay on disk; else scores.json."""
    for path in (*snapshots_of(folder)[:1], folder / "resume.pth"):
        try:
            content = values_without_tensors(path)
        except Exception:  # damaged, not there, of another program: the list goes on
            continue
        if _is_whole(content):
            return content
    return {key: value for key, value in _json(folder / "scores.json").items()
            if key in ("preset", "supervision") and isinstance(value, str)}  # fmt: skip


def _is_whole(content: object) -> TypeGuard[dict[str, Any]]:
    """Whether what the list shows of a snapshot is there, and of its types."""
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        return False
    experiment = content.get("experiment")
    train = experiment.get("train") if isinstance(experiment, dict) else None
    numbers = [content.get("step"), *(train.get(n) for n in ("steps", "seed"))] if isinstance(
        train, dict) else [None]  # fmt: skip
    words = (content.get("preset"), content.get("supervision"))
    return all(type(n) is int for n in numbers) and all(isinstance(w, str) for w in words)


def _scored(folder: Path, stored: Mapping[str, Any]) -> float | None:
    """mIoU in percent by scores.json, or by the snapshot."""
    for scores in (_json(folder / "scores.json"), stored.get("scores")):
        if isinstance(scores, dict) and isinstance(scores.get("miou"), float):
            miou: float = scores["miou"]
            return miou
    return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = unsealed(read_bytes(path, LARGE))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _tail(path: Path) -> list[dict[str, Any]]:
    """The last lines of a log, as far as they are whole."""
    try:
        with opened(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            lines = file.read(_TAIL).splitlines()
    except OSError:
        return []
    found = []
    for line in lines:
        try:
            found.append(line_values(line))
        except (ValueError, RecursionError):
            continue
    return found
