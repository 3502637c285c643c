"""The splits of a data set, found by folders or lists, as lines of a TOML file."""

import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from uda.data.drafts.pairs import SPLITS, Pairing
from uda.data.patterns import Pattern, name_of

_LISTS = ("ImageSets/Segmentation", "splits", "")  # folders of list files
_VAL_SHARE = 0.2


def split_lines(
    folder: Path, pairing: Pairing, pictures: Sequence[str], *, labeled: Collection[tuple[str, str]]
) -> tuple[list[str], list[str]]:
    """Lines that name the splits, and what to check about them. `labeled`: folder of the split and
    name of each image with labels."""
    if pairing.split_folders:
        lines = ["", "[splits]  # certain: these are folder names"]
        for name in sorted(pairing.split_folders, key=_split_order):
            called = SPLITS.get(name.lower(), name)
            taken = sum(SPLITS.get(o.lower(), o) == called for o in pairing.split_folders) > 1
            without = all(split != name for split, _ in labeled)
            lines.append(_entry(name if taken else called, "folder", name, without=without))
        return lines, []
    lists = list(_list_files(folder, pairing, pictures))
    if lists:
        lines = ["", "[splits]  # certain: these lists name existing images"]
        for name, path, names in lists:
            without = all(("", image) not in labeled for image in names)
            lines.append(_entry(name, "list", path, without=without))
        return lines, []
    remark = (
        f"no folder or list names the splits, so {_VAL_SHARE:.0%} of the images are val; "
        "images of one scene should not be in both"
    )
    return [
        "seed = 0  # of the random split below", "",
        "[splits]  # guessed: no folders or lists name them",
        f"train = {{ share = {1 - _VAL_SHARE:g} }}", f"val = {{ share = {_VAL_SHARE:g} }}",
    ], [remark]  # fmt: skip


def _entry(split: str, key: str, value: str, *, without: bool) -> str:
    """The line of a split, which may be `without` labels."""
    none = ', labels = "" }  # no image has labels' if without else " }"
    return f"{_key(split)} = {{ {key} = {quoted(value)}{none}"


def _split_order(name: str) -> tuple[int, str]:
    return list(dict.fromkeys(SPLITS.values())).index(SPLITS.get(name.lower(), "test")), name


def _list_files(
    folder: Path, pairing: Pairing, pictures: Sequence[str]
) -> Iterator[tuple[str, str, list[str]]]:
    """Name, path and lines of each list whose lines are all names of images."""
    pattern = Pattern(pairing.images, "images")
    matched = (pattern.match(path, "") for path in pictures)
    known = {name_of(values) for values in matched if values is not None}
    for place in _LISTS:
        found = []
        for split in ("train", "val", "test"):
            path = folder / place / f"{split}.txt"
            try:
                lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
            except (OSError, UnicodeDecodeError):
                lines = []
            names = [line.strip() for line in lines if line.strip()]
            if names and set(names) <= known and len(set(names)) == len(names):
                found.append((split, path.relative_to(folder).as_posix(), names))
        if found:
            yield from found
            return


def _key(text: str) -> str:
    bare = text.isascii() and text.replace("_", "").replace("-", "").isalnum()
    return text if bare else quoted(text)


def quoted(text: str) -> str:
    """As TOML writes it: like JSON but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
