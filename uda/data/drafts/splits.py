"""The splits of a data set, found by folders or lists, as lines of a TOML file."""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from uda.data.drafts.pairs import SPLITS, Pairing
from uda.data.file_tree import files_below
from uda.data.list_files import LIST_SUFFIXES, entries_of, listed_names, other_labels
from uda.data.patterns import Pattern, name_of
from uda.utilities.errors import InputError

# Folders of list files, the usual ones first; others come after them.
_FOLDERS = ("ImageSets/Segmentation", "splits", "lists", "")
_MOST_LISTS = 200
_DEEPEST = 3  # folders
_VAL_SHARE = 0.2


class _List(NamedTuple):
    """A list file whose name says a split."""

    split: str
    path: str
    names: list[str]  # of images
    rank: tuple[int, str]  # its folder and the rest of its name


class Splits(NamedTuple):
    """Lines of the TOML file, and what to check about them."""

    lines: list[str]
    remarks: list[str]


def split_lines(
    folder: Path, pairing: Pairing, pictures: Sequence[str], *, labeled: Collection[tuple[str, str]]
) -> Splits:
    """Lines that name the splits, and what to check about them. `labeled`: folder of the split and
    name of each image with labels."""
    if pairing.split_folders:
        lines = ["", "[splits]  # certain: these are folder names"]
        for name in sorted(pairing.split_folders, key=_split_order):
            called = SPLITS.get(name.lower(), name)
            taken = sum(SPLITS.get(o.lower(), o) == called for o in pairing.split_folders) > 1
            without = bool(pairing.labels) and all(split != name for split, _ in labeled)
            lines.append(_entry(name if taken else called, "folder", name, without=without))
        return Splits(lines, [])
    if not pairing.labels:
        return Splits(["", 'splits = ["train"]  # all images'], [])
    lists, remarks = _list_files(folder, pairing, pictures)
    if lists:
        lines = ["", "[splits]  # certain: these lists name existing images"]
        for found in lists:
            without = all(("", image) not in labeled for image in found.names)
            lines.append(_entry(found.split, "list", found.path, without=without))
        every = {name for found in lists for name in found.names}
        left = pairing.image_count - len(every)
        if left:
            remarks.append(f"{left} images are in none of the lists: they are not used")
        return Splits(lines, remarks)
    if round(_VAL_SHARE * pairing.image_count) == 0:
        return Splits(["", 'splits = ["train"]  # too few images for more'], remarks)
    remarks.append(
        f"no folder or list names the splits, so {_VAL_SHARE:.0%} of the images are val; "
        "images of one scene should not be in both"
    )
    return Splits([
        "seed = 0  # of the random split below", "",
        "[splits]  # guessed: no folders or lists name them",
        f"train = {{ share = {1 - _VAL_SHARE:g} }}", f"val = {{ share = {_VAL_SHARE:g} }}",
    ], remarks)  # fmt: skip


def _entry(split: str, key: str, value: str, *, without: bool) -> str:
    """The line of a split, which may be `without` labels."""
    none = ', labels = "" }  # no image has labels' if without else " }"
    return f"{_key(split)} = {{ {key} = {quoted(value)}{none}"


def _split_order(name: str) -> tuple[int, str]:
    return list(dict.fromkeys(SPLITS.values())).index(SPLITS.get(name.lower(), "test")), name


def _list_files(
    folder: Path, pairing: Pairing, pictures: Sequence[str]
) -> tuple[list[_List], list[str]]:
    """The lists whose lines are all of images, one for each split, and remarks about others."""
    paths: dict[str, str] = {}
    for path in pictures:
        for text in pairing.images:
            values = Pattern(text, "images").match(path, "")
            if values is not None:
                paths.setdefault(name_of(values), path)
    labels, found, remarks = Pattern(pairing.labels, "labels"), list[_List](), list[str]()
    for path, split in _candidates(folder):
        try:
            listed, unknown = listed_names(folder / path, split, paths)
        except InputError as error:
            remarks.append(str(error))
            continue
        if not listed or len(unknown) > len(listed):
            continue  # a text about something else
        if unknown:
            remarks.append(
                f"{path} is not used: {len(unknown)} of its lines name no image that is there, the "
                f"first is line {unknown[0].line}, {unknown[0].whole[:100]}"
            )
            continue
        odd = list(other_labels(listed, lambda name: labels.write((name,), "")))
        if odd:
            remarks.append(
                f"{path} names other label files than {pairing.labels}, the first in line "
                f"{odd[0][0].line}: {odd[0][0].whole[:100]}"
            )
        found.append(_List(split, path, sorted(listed), _rank(path)))
    return _best(found), remarks


def _best(found: Sequence[_List]) -> list[_List]:
    """One list for each split, of one folder and manner of naming, the one with most splits."""
    kinds: dict[tuple[int, str], dict[str, _List]] = {}
    for item in found:
        kinds.setdefault(item.rank, {}).setdefault(item.split, item)
    if not kinds:
        return []
    best = min(kinds, key=lambda rank: (-len(kinds[rank]), rank))
    return sorted(kinds[best].values(), key=lambda item: _split_order(item.split))


def _candidates(folder: Path) -> Iterator[tuple[str, str]]:
    """The path of each list whose name, or a column of it, says what split it is of."""
    texts = [p for p in files_below(folder, levels=_DEEPEST) if p.lower().endswith(LIST_SUFFIXES)]
    for path in texts[:_MOST_LISTS]:
        words = re.findall(r"[a-z]+", PurePosixPath(path).stem.lower())
        splits = {SPLITS[word] for word in words if word in SPLITS}
        if len(splits) == 1:
            yield path, splits.pop()
        elif not splits:
            yield from ((path, split) for split in _splits_in(folder / path))


def _splits_in(path: Path) -> list[str]:
    """The splits that a column of a list speaks of."""
    try:
        everything = entries_of(path, "")  # the lines of no split: none, where there is a column
        return [] if everything else [s for s in ("train", "val", "test") if entries_of(path, s)]
    except InputError:
        return []  # it is not a list, and the user did not name it


def _rank(path: str) -> tuple[int, str]:
    place = PurePosixPath(path)
    parent = "" if place.parent == PurePosixPath() else place.parent.as_posix()
    order = _FOLDERS.index(parent) if parent in _FOLDERS else len(_FOLDERS)
    words = re.findall(r"[a-z]+", place.stem.lower())
    rest = "_".join(word for word in words if word not in SPLITS)
    return order, f"{parent}/{rest}"


def _key(text: str) -> str:
    bare = text.isascii() and text.replace("_", "").replace("-", "").isalnum()
    return text if bare else quoted(text)


def quoted(text: str) -> str:
    """As TOML writes it: like JSON but for one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
