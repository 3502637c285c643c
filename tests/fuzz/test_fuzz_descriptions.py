"""TOML files that describe a data set: damaged ones, and values of every shape under every key."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from fuzz_guard import Tally, attempt, both_runs, drive
from fuzz_mutations import mutated_bytes
from hypothesis import strategies as st

from factories import noise, write_png
from tiny_runs import REPOSITORY
from uda.data.registry import layout_named, list_dataset

EXAMPLE = re.findall(
    r"```toml\n(.*?)```", (REPOSITORY / "docs/own_data.md").read_text(), re.DOTALL
)[0]
TEXTS = st.one_of(
    st.sampled_from(
        ["", "..", "/etc/{name}", "../{name}", "**/**/**/**/*?", "{name}{name}", "{split}", "a\0b",
         "{name}.png", "x" * 5000, "\x1b[2J{name}", "{name", "*" * 50, "train", "road", "[a-z]*"]
    ),
    st.text(alphabet="ab/*?{}.\\ \n\u00e9", max_size=12),
)  # fmt: skip
NUMBERS = st.one_of(st.integers(-(2**70), 2**70), st.floats(), st.integers(0, 255), st.booleans())
VALUES = st.recursive(
    st.one_of(TEXTS, NUMBERS),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXTS, inner, max_size=2)),
    max_leaves=6,
)
PLAIN: dict[str, Any] = {
    "images": "images/{split}/{name}.png", "labels": "labels/{split}/{name}.png",
    "splits": ["train"], "ignore": [255], "name": "own",
    "classes": [{"name": "road", "value": 0}, {"name": "car", "values": [1, 2]}],
}  # fmt: skip
KEYS = (*PLAIN, "root", "seed", "ignore_colors", "mirror_swaps", "reduce_zero_label", "more")
CLASS_KEYS = ("name", "value", "values", "color", "colors", "scored", "more")
SPLIT_KEYS = ("folder", "list", "share", "images", "labels", "more")
FILES = st.one_of(
    st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3).map(lambda d: PLAIN | d),
    st.dictionaries(st.sampled_from(CLASS_KEYS), VALUES, max_size=3).map(
        lambda d: PLAIN | {"classes": [*PLAIN["classes"], {"name": "new", "value": 9} | d]}
    ),
    st.dictionaries(st.sampled_from(SPLIT_KEYS), VALUES, max_size=3).map(
        lambda d: PLAIN | {"splits": {"train": d}}
    ),
)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of files is kept where they are."""
    monkeypatch.setenv("UDA_CACHE", str(tmp_path / "cache"))


def toml(value: object) -> str:
    """`value` as TOML writes it on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return repr(value).lower() if isinstance(value, bool | float) else json.dumps(value)


def use(path: Path) -> None:
    """Everything that a run does with such a file before it opens a picture."""
    layout = layout_named(str(path))
    for split in layout.splits:
        list_dataset(Path(), str(path), split, labeled=False)
        list_dataset(Path(), str(path), split, labeled=True)


def home(folder: Path) -> Path:
    for kind in ("images", "labels"):
        write_png(folder / f"{kind}/train/a.png", noise(0)[..., 0])
    return folder / "own.toml"


@both_runs
def test_descriptions_of_every_shape(total: int, tmp_path: Path) -> None:
    tally, path = Tally("descriptions, values"), home(tmp_path)

    def check(values: dict[str, Any]) -> None:
        lines = [f"{json.dumps(key)} = {toml(value)}" for key, value in values.items()]
        path.write_text("\n".join(lines))
        attempt(tally, tmp_path, lambda: use(path))

    drive(FILES, check, total // 4)
    print(tally)


@both_runs
def test_damaged_descriptions(total: int, tmp_path: Path) -> None:
    tally, path = Tally("descriptions, bytes"), home(tmp_path)
    odd = [b"a=" + b"[" * 10**5, b"[a" + b".a" * 10**5 + b"]", b"\xff\xfe", b"\xef\xbb\xbfa=1",
           b"x=" + b"1" * 10**5, b""]  # fmt: skip
    for number in range(total // 10):
        whole = EXAMPLE.encode()
        content = mutated_bytes(whole, Random(number)) if number >= len(odd) else odd[number]
        path.write_bytes(content)
        attempt(tally, tmp_path, lambda: use(path))
    print(tally)
