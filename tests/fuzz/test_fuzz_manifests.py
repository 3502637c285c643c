"""Manifests of pseudo-labels: damaged files, and JSON of every shape."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from fuzz_guard import Tally, attempt, both_runs, drive
from fuzz_mutations import mutated_bytes
from hypothesis import strategies as st

from trials import any_manifest
from uda.data.pseudo_label_folder import (
    MANIFEST,
    Manifest,
    PseudoLabelFolder,
    PseudoLabelWriter,
)
from uda.labels.spaces import CITYSCAPES

SIZE = (4, 8)  # pixels (height, width)
STEMS = ("aachen_000000_000019", "ulm_000005_000019")
VALUES: dict[str, Any] = asdict(any_manifest(STEMS, CITYSCAPES))

NAMES = st.one_of(
    st.sampled_from(
        ["../up", "/etc/passwd", "a/b", "..", ".", "", "C:\\x", "\\\\host\\x", "a\0b", "x" * 5000,
         "\ud800", "\x1b[2J", *STEMS]
    ),
    st.text(),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**30), 2**64]))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, NAMES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=8,
)


def changed(values: dict[str, Any], changes: dict[str, Any], gone: list[str]) -> dict[str, Any]:
    return {name: value for name, value in (values | changes).items() if name not in gone}


MANIFESTS = st.one_of(
    JSON,
    st.builds(
        changed,
        st.just(VALUES),
        st.dictionaries(st.sampled_from(sorted(VALUES)), JSON, max_size=3),
        st.lists(st.sampled_from(sorted(VALUES)), max_size=1),
    ),
    st.builds(lambda names: VALUES | {"images": names}, st.lists(NAMES, max_size=4)),
    st.builds(lambda share: VALUES | {"threshold": share, "image_count": share}, NUMBERS),
)


def made(folder: Path) -> Path:
    with PseudoLabelWriter(folder) as writer:
        for stem in STEMS:
            writer.write(stem, np.zeros(SIZE, np.uint8))
        writer.finish(Manifest(**VALUES))
    return folder


def use(folder: Path) -> None:
    """Everything that training does with such a folder, and with the names it declares."""
    opened = PseudoLabelFolder(folder, label_space=CITYSCAPES, stems=STEMS, subset=True)
    for stem in (*STEMS, *opened.manifest.images):
        opened.read(stem, SIZE)


def copy_names(folder: Path) -> None:
    """Writes under each name that the manifest has, valid or not."""
    values = json.loads((folder / MANIFEST).read_text())
    names = values.get("images") if isinstance(values, dict) else None
    with PseudoLabelWriter(folder.parent / "copy") as writer:
        for name in names if isinstance(names, list) else ():
            if isinstance(name, str):
                writer.write(name, np.zeros(SIZE, np.uint8))


@both_runs
def test_manifests_of_every_shape(total: int, tmp_path: Path) -> None:
    tally, folder = Tally("manifests, values"), made(tmp_path / "home" / "labels")

    def check(values: object) -> None:
        (folder / MANIFEST).write_text(json.dumps(values))
        attempt(tally, folder.parent, lambda: use(folder))
        attempt(Tally("copies"), folder.parent, lambda: copy_names(folder))

    drive(MANIFESTS, check, total * 15 // 100)
    print(tally)


@both_runs
def test_damaged_manifests(total: int, tmp_path: Path) -> None:
    tally, folder = Tally("manifests, bytes"), made(tmp_path / "home" / "labels")
    whole = (folder / MANIFEST).read_bytes()
    odd = [b"[" * 10**5, b'{"a":' * 10**5, b"1" * 10**5, b"\xff\xfe", b"\xef\xbb\xbf{}", b"NaN"]
    for number in range(total // 10):
        random = Random(number)
        content = mutated_bytes(whole, random) if number >= len(odd) else odd[number]
        (folder / MANIFEST).write_bytes(content)
        attempt(tally, folder.parent, lambda: use(folder))
    shutil.rmtree(folder)
    print(tally)
