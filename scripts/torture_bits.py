"""Bits flipped in every kind of file that the commands write, for `torture.py`: a reader refuses
the file by name, makes a cache anew, or finds what was written; nothing else may come of it."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from torture_runs import flattened
from uda.checkpoints import snapshots
from uda.data.files import read_image
from uda.data.known_files import FileCache
from uda.data.png_checks import check_png
from uda.data.pseudo_label_folder import read_manifest
from uda.data.translated_folder import find_manifest
from uda.reports.adaptation_file import read_adaptation
from uda.reports.run_log import read_log
from uda.utilities.errors import InputError
from uda.utilities.reading import read_bytes
from uda.utilities.sealed_json import unsealed
from uda.utilities.weight_files import read_weights

Read = Callable[[Path], object]


@dataclass
class Flips:
    """What became of the files of one kind."""

    flips: int = 0
    refused: int = 0  # by name, or counted as a damaged line
    harmless: int = 0  # what was read is what was written
    silent: int = 0  # something else was read


def _of(value: object) -> str:
    """A digest of all that was read."""
    leaves: dict[str, Any] = {}
    flattened(value, "", leaves)
    found = hashlib.sha256()
    for name, leaf in sorted(leaves.items()):
        found.update(name.encode(errors="surrogateescape"))
        found.update(np.asarray(leaf).tobytes() if hasattr(leaf, "shape") else repr(leaf).encode())
    return found.hexdigest()


def _weights(path: Path) -> str:
    return _of(read_weights(path, expected="weights", instead="train again"))


def _record(path: Path) -> str:
    try:
        return _of(unsealed(read_bytes(path, 2**26)))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}") from None


def _log(path: Path) -> str:
    log = read_log(path.parent)
    if log.damaged:
        raise InputError(f"{path}: {log.damaged} damaged lines")
    return _of(log.series)


def _cache(path: Path) -> str:
    entries = FileCache(path)._entries
    if not entries:
        raise InputError(f"{path} is made anew")
    return _of(entries)


def _picture(path: Path) -> str:
    check_png(path)  # as training does with pseudo-labels
    return _of(np.asarray(read_image(path)))


def readers(folder: Path) -> Mapping[str, tuple[Path, Read]]:
    """A file of each kind below `folder`, where every command has been called once; and what reads
    it."""
    done = {name: folder / f"{name}_1" / "out" for name in ("train", "label", "predict", "adapt",
            "translate", "train-translation")}  # fmt: skip
    run = done["train"]
    return {
        "snapshot": (next(run.glob("*_12.pth")), lambda path: _of(_snapshot_values(path))),
        "state of a run": (run / "resume.pth", _weights),
        "log of a run": (run / "metrics.jsonl", _log),
        "choices of a run": (run / "summary.json", _record),
        "state of a translation": (done["train-translation"] / "resume.pth", _weights),
        "generator": (next(done["train-translation"].glob("translation_6.pth")), _weights),
        "manifest of pseudo-labels": (
            done["label"] / "manifest.json", lambda path: _of(asdict(read_manifest(path.parent)))
        ),
        "pseudo-labels": (next(done["label"].glob("*.png")), _picture),
        "manifest of a translation": (
            done["translate"] / "translation.json",
            lambda path: _of(_fields(find_manifest(path.parent))),
        ),
        "manifest of predictions": (done["predict"] / "predictions.json", _record),
        "record of an adaptation": (
            done["adapt"] / "adapt.json", lambda path: _of(read_adaptation(path.parent))
        ),
        "adapted network": (done["adapt"] / "adapted.pth", _weights),
        "facts of files": (folder / "cache" / "files.json", _cache),
    }  # fmt: skip


def _snapshot_values(path: Path) -> dict[str, Any]:
    return snapshots.snapshot_values(snapshots.load(path))


def _fields(value: Any) -> dict[str, Any]:  # noqa: ANN401
    return {} if value is None else asdict(value)


def flip_bits(folder: Path, flips: int, rng: np.random.Generator) -> dict[str, dict[str, int]]:
    """`flips` files of each kind, one bit of each flipped; the kind and what came of it."""
    found = {}
    for kind, (path, read) in readers(folder).items():
        done = Flips()
        whole = path.read_bytes()
        expected = read(path)
        for place in rng.integers(8 * len(whole), size=flips).tolist():
            damaged = bytearray(whole)
            damaged[place // 8] ^= 1 << place % 8
            path.write_bytes(damaged)
            done.flips += 1
            try:
                same = read(path) == expected
            except InputError:
                done.refused += 1
            else:
                done.harmless += same
                done.silent += not same
        path.write_bytes(whole)
        found[kind] = vars(done)
    return found
