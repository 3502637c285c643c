"""The contents of label files: values or colors, and class names from a list next to them."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from uda.data.files import decode
from uda.data.label_files import color_codes
from uda.utilities.errors import InputError, require

_MOST_CLASSES = 254
_LISTS = ("classes.txt", "labels.txt", "class_names.txt")
_TABLES = ("class_dict.csv", "labels.csv", "classes.csv", "label_colors.csv")

Color = tuple[int, int, int]


class Seen(NamedTuple):
    """What some label files hold."""

    values: Counter[int]  # pixels of each; empty if files contain colors
    colors: Counter[Color]  # likewise
    palette: dict[int, Color]  # the color of a value, where palettes say one


class Names(NamedTuple):
    """Names of classes, and the file that they come from."""

    of_value: dict[int, str]
    of_color: dict[Color, str]
    file: str = ""


def look_at_labels(paths: Sequence[Path]) -> Seen:
    """The values or colors in label files; InputError when no labels, or mixed."""
    seen = Seen(Counter(), Counter(), {})
    for path in paths:
        picture = decode(path)
        if picture.mode in ("L", "P"):
            seen.values.update({v: n for v, n in enumerate(picture.histogram()[:256]) if n})
            _note_palette(picture, seen.palette)
        elif picture.mode in ("RGB", "RGBA"):
            seen.colors.update(_colors(picture, path))
        else:
            raise InputError(
                f"{path}: mode {picture.mode} is not supported for labels; convert it to 8 bits"
            )
        require(
            not (seen.values and seen.colors),
            f"{path} holds {'colors' if picture.mode.startswith('RGB') else 'values'}, other label "
            "files do not: a data set has labels of one kind",
        )
        require(
            max(len(seen.values), len(seen.colors)) <= _MOST_CLASSES + 1,
            f"{path}: with it there are {max(len(seen.values), len(seen.colors))} different values "
            f"or colors, more than {_MOST_CLASSES} classes: these look like photographs",
        )
    return seen


def _note_palette(picture: Image.Image, palette: dict[int, Color]) -> None:
    levels = picture.getpalette("RGB") if picture.mode == "P" else None
    for place in range(len(levels or ()) // 3):
        assert levels is not None
        red, green, blue = levels[3 * place : 3 * place + 3]
        palette.setdefault(place, (red, green, blue))


def _colors(picture: Image.Image, path: Path) -> dict[Color, int]:
    codes, counts = np.unique(color_codes(picture), return_counts=True)
    require(
        len(codes) <= _MOST_CLASSES + 1,
        f"{path} has {len(codes)} colors, more than {_MOST_CLASSES} classes: it looks like a "
        "photograph, or JPEG has changed its colors",
    )
    return {
        (int(code) >> 16, int(code) >> 8 & 255, int(code) & 255): int(count)
        for code, count in zip(codes, counts, strict=True)
    }


def names_beside(folder: Path, seen: Seen) -> Names:
    """The names that a list in `folder` gives to all that was seen; none where it does not fit."""
    for name in _LISTS:
        lines = [line.strip() for line in _text(folder / name).splitlines()]
        known = {place: line for place, line in enumerate(lines) if line}
        if seen.values and set(seen.values) - {255} <= set(known) and _are_names(known.values()):
            return Names(known, {}, name)
    for name in _TABLES:
        of_color = _table(_text(folder / name))
        if seen.colors and set(seen.colors) <= set(of_color) and _are_names(of_color.values()):
            return Names({}, of_color, name)
    return Names({}, {})


def _are_names(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) == len(listed) and all(0 < len(name) <= 100 for name in listed)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else ""
    except (OSError, UnicodeDecodeError):
        return ""  # it is not a list, and the user did not name it


def _table(text: str) -> dict[Color, str]:
    """The colors of a table with lines `name, r, g, b`; none when a line is another."""
    found: dict[Color, str] = {}
    for number, row in enumerate(csv.reader(text.splitlines())):
        try:
            name, (red, green, blue) = row[0].strip(), map(int, row[1:4])
        except (ValueError, IndexError):
            if number == 0:  # the names of columns
                continue
            return {}
        found[red, green, blue] = name
    return found
