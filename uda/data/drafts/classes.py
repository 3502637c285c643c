"""The contents of label files: values or colors, and class names from a list next to them."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.deep_images import DEEP_GRAY, bits_of, deep_values
from uda.data.files import COLOR_MODES, opened
from uda.data.label_files import color_codes, gray_scale
from uda.data.label_statistics import LabelStatistics
from uda.labels.spaces import CHANNELS
from uda.utilities.errors import InputError, require
from uda.utilities.reading import SMALL, color_in, csv_rows, read_text, whole_number

_MOST_CLASSES = 254
_LISTS = ("classes.txt", "labels.txt", "class_names.txt")
_COLORS_FIRST = "label_colors.txt"
_NUMBERED = "objectInfo150.txt"
_TABLES = ("class_dict.csv", "labels.csv", "classes.csv", "label_colors.csv")

Color = tuple[int, int, int]
Kind = Literal["values", "colors", "deep"]  # deep: RGB of 16 bits per channel


class Seen(NamedTuple):
    """What some label files hold."""

    statistics: LabelStatistics  # of values, or of 65536 R + 256 G + B
    values: dict[int, int]  # pixels of each; empty if files contain colors
    colors: dict[Color, int]  # likewise
    palette: dict[int, Color]  # the color of a value, where palettes say one
    channel: str = ""  # of 16-bit RGB files: the one that has the values
    small: bool = False  # whether gray files of 1, 2 or 4 bits are among them


class Codes(NamedTuple):
    """The pixels of one label file."""

    kind: Kind
    codes: npt.NDArray[np.integer]  # (H, W), or (H, W, 3) if deep
    palette: dict[int, Color]
    small: bool


def read_codes(path: Path, *, stored: bool) -> Codes:
    """The values or colors in a label file of any form; InputError when it has neither. `stored`:
    see `Coding`."""
    with opened(path) as image:
        if image.mode in DEEP_GRAY:
            values = deep_values(image)
            require(
                values.min() >= 0 and values.max() < 65536 and not (values % 1).any(),
                f"{path}: values from {values.min()} to {values.max()} are no label ids",
            )
            return Codes("values", values.astype(np.uint16), {}, small=False)
        if image.mode in COLOR_MODES and bits_of(image) > 8:
            return Codes("deep", deep_values(image), {}, small=False)
        scale = gray_scale(image) if stored else 1
        image.load()
        if image.mode in COLOR_MODES:
            return Codes("colors", color_codes(image), {}, small=False)
        require(
            image.mode in ("1", "L", "LA", "P"),
            f"{path}: mode {image.mode} is not supported for labels; convert it to 8 bits",
        )
        gray = image if image.mode in ("L", "P") else image.convert("L")
        return Codes("values", np.asarray(gray) // scale, _palette(image), small=scale > 1)


def look_at_labels(paths: Sequence[Path]) -> Seen:
    """The values or colors in label files; InputError when no labels, or mixed."""
    palette: dict[int, Color] = {}
    first, small, channel, statistics = "", False, "", LabelStatistics()
    stored = all(map(_is_small, paths))  # else a program has made some of them smaller
    for path in paths:
        kind, codes, own_palette, is_small = read_codes(path, stored=stored)
        first = first or kind
        require(
            kind == first,
            f"{path} holds {_spoken(kind)}, other label files hold {_spoken(first)}: a data set "
            "has labels of one kind",
        )
        if kind == "deep":
            channel = channel or _channel_with_classes(codes, path)
            codes = codes[..., CHANNELS.index(channel)]
        found = np.unique(codes).size
        require(
            found <= _MOST_CLASSES + 1,
            f"{path} has {found} {'colors' if kind == 'colors' else 'values'}, more than "
            f"{_MOST_CLASSES} classes: it looks like a photograph, or JPEG has changed its colors",
        )
        statistics.add(codes, path)
        small |= is_small
        for value, color in own_palette.items():
            palette.setdefault(value, color)
        require(
            len(statistics.of) <= _MOST_CLASSES + 1,
            f"{path}: with it there are {len(statistics.of)} different values or colors, more than "
            f"{_MOST_CLASSES} classes: these look like photographs",
        )
    pixels = {code: facts.pixels for code, facts in sorted(statistics.of.items())}
    if first == "colors":
        return Seen(statistics, {}, {color_of(code): n for code, n in pixels.items()}, palette)
    return Seen(statistics, pixels, {}, palette, channel, small)


def color_of(code: int) -> Color:
    return code >> 16, code >> 8 & 255, code & 255


def code_of(color: Color) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue


def _is_small(path: Path) -> bool:
    with opened(path) as image:
        return gray_scale(image) > 1


def _spoken(kind: str) -> str:
    return {"deep": "colors of 16 bits per channel"}.get(kind, kind)


def _channel_with_classes(values: npt.NDArray[np.integer], path: Path) -> str:
    """The channel that has the classes: the first with several small values. Others have numbers
    of objects, or nothing."""
    for place, channel in enumerate(CHANNELS):
        found = np.unique(values[..., place])
        if found.size > 1 and found[-1] < 256:
            return channel
    raise InputError(
        f"{path}: it has 16 bits per channel, and no channel has several values up to 255: it "
        "looks like a photograph"
    )


def _palette(picture: Image.Image) -> dict[int, Color]:
    levels = picture.getpalette("RGB") if picture.mode == "P" else None
    triples = np.reshape(levels or [], (-1, 3)).astype(int).tolist()
    return {place: (red, green, blue) for place, (red, green, blue) in enumerate(triples)}


class Names(NamedTuple):
    """Names of classes, and the file that they come from."""

    of_value: dict[int, str]
    of_color: dict[Color, str]
    file: str = ""

    @property
    def by_code(self) -> dict[int, str]:
        """By the numbers of `LabelStatistics`."""
        return self.of_value | {code_of(color): name for color, name in self.of_color.items()}


def names_beside(folder: Path, seen: Seen) -> Names:
    """The names that a list in `folder` gives to all that was seen; none where it does not fit."""
    for name in _LISTS:
        lines = [line.strip() for line in _text(folder / name).splitlines()]
        known = {place: line for place, line in enumerate(lines) if line}
        if seen.values and set(seen.values) - {255} <= set(known) and _are_names(known.values()):
            return Names(known, {}, name)
    listed = _numbered(_text(folder / _NUMBERED))
    if seen.values and set(seen.values) - {0} <= set(listed) and _are_names(listed.values()):
        return Names(listed, {}, _NUMBERED)
    for name in _TABLES:
        of_color = _table(_text(folder / name))
        if seen.colors and set(seen.colors) <= set(of_color) and _are_names(of_color.values()):
            return Names({}, of_color, name)
    colors = _triples_first(_text(folder / _COLORS_FIRST))
    if seen.colors and set(seen.colors) <= set(colors) and _are_names(colors.values()):
        return Names({}, colors, _COLORS_FIRST)
    return Names({}, {})


def _triples_first(text: str) -> dict[Color, str]:
    """The colors of CamVid's list: three numbers and a name in each line."""
    rows = [line.split() for line in text.splitlines() if line.strip()]
    found = {}
    for row in rows:
        color = color_in(row[:3])
        if color is None or len(row) != 4:
            return {}
        found[color] = row[3]
    return found


def _numbered(text: str) -> dict[int, str]:
    """The names of ADE20K's table: a number first, and the name, with synonyms, last."""
    rows = [line.split("\t") for line in text.splitlines()]
    numbered = [(whole_number(row[0]), row[-1]) for row in rows]
    return {n: name.split(",")[0].strip() for n, name in numbered if n is not None}


def _are_names(names: Iterable[str]) -> bool:
    listed = list(names)
    return len(set(listed)) == len(listed) and all(0 < len(name) <= 100 for name in listed)


def _text(path: Path) -> str:
    try:
        return read_text(path, SMALL, "utf-8")
    except (OSError, ValueError):
        return ""  # it is not a list, and the user did not name it


def _table(text: str) -> dict[Color, str]:
    """The colors of a table with lines `name, r, g, b`; none when a line is another."""
    found: dict[Color, str] = {}
    try:
        rows = list(csv_rows(text.splitlines()))
    except ValueError:
        return {}
    for number, row in enumerate(rows):
        color = color_in(row[1:4])
        if color is None and number == 0:  # the names of columns
            continue
        if color is None:
            return {}
        found[color] = row[0]
    return found
