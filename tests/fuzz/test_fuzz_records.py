"""Records that commands write and read again: damaged, and with values of every shape."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from fuzz_guard import Tally, attempt, both_runs, drive
from fuzz_mutations import mutated_archive_of_arrays, mutated_bytes
from fuzz_values import changed

from uda.adaptation.record import Record
from uda.data.known_files import FileCache, KnownFiles
from uda.data.registry import layout_named
from uda.data.translated_folder import TranslationManifest, is_translated, known_split
from uda.labels.spaces import CITYSCAPES
from uda.prediction.writer import PredictionWriter
from uda.reports.per_image import NAME as PER_IMAGE
from uda.reports.per_image import read_per_image
from uda.reports.run_files import find_run
from uda.reports.run_list import listed_runs
from uda.training.metrics_file import drop_lines_after, entries_of
from uda.utilities.sealed_json import sealed

SETTINGS = {"methods": ["auto"], "minutes": 10.0, "seed": 0, "command": "uda adapt"}
STAGE = {"name": "batch-norm", "steps": 0, "seconds": 1.5, "kept": True}


def adaptation() -> dict[str, Any]:
    return {"format": "uda adapt 1", "settings": dict(SETTINGS), "stages": [dict(STAGE)],
            "warnings": []}  # fmt: skip


def continued(folder: Path) -> None:
    record = Record.opened(folder, SETTINGS)
    record.stage(1, "batch-norm")
    record.stage(2, "self-training")
    record.write()


def translation() -> dict[str, Any]:
    manifest = TranslationManifest(
        method="color", translator={"match": "image"}, dataset="gta5", splits=("train",),
        image_count=6, images_sha256="0" * 64, width=None, picture_format="png",
        library_version="1", finished=True,
    )  # fmt: skip
    return asdict(manifest)


def translated(folder: Path) -> None:
    is_translated(folder)
    known_split(layout_named("gta5"), folder, "train")


def scores() -> dict[str, Any]:
    return {"preset": "toy", "snapshot": "a.pth", "supervision": "none", "miou": 12.5,
            "per_class": {"road": 50.0, "sky": None}, "protocol": "on gta5 val: 3"}  # fmt: skip


def choices() -> dict[str, Any]:
    row = {"way": "last", "step": 5, "miou": 1.5, "criterion": None, "snapshot": "GTA5_5.pth"}
    return {"evaluated": [5], "selection": [row]}


def listed(folder: Path) -> None:
    find_run(folder)
    list(listed_runs(folder.parent))


def predictions() -> dict[str, Any]:
    return {"format": "uda-predictions-1", "kinds": {"ids": "gray"}, "images": ["a.png", "b/c.jpg"]}


def line() -> dict[str, Any]:
    return {"step": 5, "loss/a/main": 0.5, "lr": 0.1, "miou": 0.25, "protocol": "native"}


def logged(folder: Path) -> None:
    list(entries_of(folder / "metrics.jsonl"))
    list(listed_runs(folder.parent))
    drop_lines_after(folder / "metrics.jsonl", 5, unfinished=True)


# The file, what it should hold, and what reads it.
RECORDS: dict[str, tuple[str, Callable[[], dict[str, Any]], Callable[[Path], object]]] = {
    "adaptations": ("adapt.json", adaptation, continued),
    "translations": ("translation.json", translation, translated),
    "scores": ("scores.json", scores, listed),
    "choices": ("summary.json", choices, listed),
    "logs": ("metrics.jsonl", line, logged),
}


def folder_for(name: str, root: Path) -> Path:
    """A run's folder with what a record of that name stands beside."""
    folder = root / "runs" / "a"
    folder.mkdir(parents=True)
    if name == "summary.json":
        (folder / "scores.json").write_text(json.dumps(scores()))
    return folder


@both_runs
@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_every_shape(kind: str, total: int, tmp_path: Path) -> None:
    name, make, use = RECORDS[kind]
    tally, folder = Tally(f"{kind}, values"), folder_for(name, tmp_path)

    def check(values: object) -> None:
        (folder / name).write_text(json.dumps(values))
        attempt(tally, tmp_path, lambda: use(folder))

    drive(changed(make), check, total // 20)
    print(tally)


@both_runs
@pytest.mark.parametrize("kind", RECORDS)
def test_damaged_records(kind: str, total: int, tmp_path: Path) -> None:
    name, make, use = RECORDS[kind]
    tally, folder = Tally(f"{kind}, bytes"), folder_for(name, tmp_path)
    odd = [
        b"[" * 10**5,
        b'{"a":' * 10**5,
        b"1" * 10**5,
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"NaN",
        b"",
    ]
    for number in range(total // 20):
        random = Random(number)
        whole = sealed(make()) if random.random() < 0.5 else json.dumps(make()).encode()
        content = mutated_bytes(whole, random) if number >= len(odd) else odd[number]
        (folder / name).write_bytes(content)
        attempt(tally, tmp_path, lambda: use(folder))
    print(tally)


@both_runs
def test_caches(total: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that a cache holds is believed, or refused: it is made anew."""
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))
    tally, picture = Tally("caches"), tmp_path / "a.png"
    picture.write_bytes(b"no picture")
    (state,) = KnownFiles().stamps([picture])
    (digest,) = KnownFiles().digests([picture])

    def make() -> dict[str, Any]:
        facts = {f"sha256:{picture}": [state.state, "0"], f"header:{picture}": [state.state, [1]]}
        return {"format": "uda-files-1", "files": facts}

    def check(values: object) -> None:
        path = tmp_path / "cache" / "files.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(values))
        attempt(tally, tmp_path, lambda: FileCache(path).save(always=True))
        path.write_text(json.dumps(values))
        attempt(tally, tmp_path, lambda: KnownFiles().digests([picture]))
        attempt(tally, tmp_path, lambda: KnownFiles().headers([picture]))
        attempt(tally, tmp_path, lambda: KnownFiles().ends([picture]))

    drive(changed(make), check, total // 20)
    assert digest
    print(tally)


@both_runs
def test_counts_of_images(total: int, tmp_path: Path) -> None:
    facts = {"snapshot": "a_1.pth", "protocol": "native", "classes": ["a", "b"], "stems": ["x"],
             "unscored": [1]}  # fmt: skip
    path = tmp_path / PER_IMAGE
    np.savez_compressed(
        path, facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
        counts=np.ones((1, 2, 2), np.int32),
    )  # fmt: skip
    whole, tally = path.read_bytes(), Tally("counts of images")
    for number in range(total // 20):
        random = Random(number)
        mutate = mutated_archive_of_arrays if random.random() < 0.6 else mutated_bytes
        path.write_bytes(mutate(whole, random))
        attempt(tally, tmp_path, lambda: read_per_image(tmp_path))
    print(tally)


@both_runs
def test_folders_of_predictions(total: int, tmp_path: Path) -> None:
    tally, folder = Tally("predictions, values"), tmp_path / "out"
    folder.mkdir()

    def check(values: object) -> None:
        (folder / "predictions.json").write_text(json.dumps(values))
        attempt(
            tally,
            tmp_path,
            lambda: PredictionWriter(folder, label_space=CITYSCAPES, kinds=("ids",)),
        )

    drive(changed(predictions), check, total // 20)
    print(tally)
