"""A first version of the TOML file that describes a data set, from a look at its folder.

What it says was found or guessed, and it says which; it is read and listed before it is written.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from uda.data.described.file import description_of
from uda.data.described.layouts import layout_of
from uda.data.drafts.classes import Color, Names, Seen, look_at_labels, names_beside
from uda.data.drafts.pairs import Pairing, best_pairing
from uda.data.drafts.splits import quoted, split_lines
from uda.data.file_tree import pictures_below
from uda.data.known_files import KnownFiles
from uda.data.listing import list_split
from uda.data.patterns import Pattern, name_of
from uda.data.registry import LABEL_SPACES, LAYOUTS, check_sizes
from uda.data.samples import evenly_spaced
from uda.utilities.errors import InputError, require

_LOOKED_AT = 200  # label files whose values are read
_SIZES_LOOKED_AT = 16
_HIGHEST_GUESS = 250  # values from here on are probably not classes, most often 255


class Draft(NamedTuple):
    """The file's text, and what the user should check."""

    text: str
    to_check: list[str]
    facts: dict[str, object]


def draft_description(folder: Path, output: Path) -> Draft:
    """The text of a file at `output` that describes the data set in `folder`.

    Raises InputError when the folder's layout is not recognized.
    """
    require(folder.is_dir(), f"{folder} is not a folder: give one with images and labels")
    pictures = pictures_below(folder)
    require(bool(pictures), f"there are no .png or .jpg files below {folder}")
    pairing = best_pairing(pictures)
    of_images = _label_files(folder, pairing, pictures)
    splits, split_remarks = split_lines(folder, pairing, pictures, labeled=set(of_images))
    labels = sorted(set(of_images.values()))
    read = [labels[i] for i in _spread(len(labels), _LOOKED_AT)]
    seen = look_at_labels([folder / path for path in read])
    names = names_beside(folder, seen)
    to_check = [*split_remarks, *_remarks(pairing, seen, names, len(read), len(labels))]
    name = _name(folder)
    lines = [
        "# A draft of scripts/describe_dataset.py; docs/own_data.md says what each key means.",
        f"# Found: {pairing.image_count} images, {pairing.pair_count} of them with labels; the "
        f"values below are those of {len(read)} of {len(labels)} label files.",
        *(f"# CHECK: {remark}" for remark in to_check),
        "",
        f"name = {quoted(name)}",
        f"root = {quoted(os.path.relpath(folder, output.parent))}",
        f"images = {quoted(pairing.images)}",
        f"labels = {quoted(pairing.labels)}",
        *_ignored(seen),
        *splits,
        *_classes(seen, names),
    ]
    text = "\n".join(lines) + "\n"
    counts = _counts(text, output)
    facts = {"name": name, "images": pairing.images, "labels": pairing.labels} | counts
    facts["classes"] = text.count("[[classes]]")
    return Draft(text, to_check, facts)


def _counts(text: str, output: Path) -> dict[str, object]:
    """Images of each split, as the finished file is going to list them; InputError if it cannot."""
    description = description_of(text, output.absolute())
    layout = layout_of(description)
    counts: dict[str, object] = {}
    for split in layout.splits:
        found = list_split(layout, description.root, split, labeled=False)
        counts[f"split {split}"] = f"{len(found)} images"
        try:
            labeled = list_split(layout, description.root, split, labeled=True)
        except InputError:
            some = "none" if layout.part(split).labels is None else "not all"
            counts[f"split {split}"] = f"{len(found)} images, {some} of them with labels"
            continue
        check_sizes(evenly_spaced(labeled, _SIZES_LOOKED_AT), KnownFiles())
    return counts


def _label_files(
    folder: Path, pairing: Pairing, pictures: Sequence[str]
) -> dict[tuple[str, str], str]:
    """The labels of all images that have some, by the folder of the split and the image's name."""
    images, labels = Pattern(pairing.images, "images"), Pattern(pairing.labels, "labels")
    there, found = set(pictures), {}
    for path in pictures:
        for split in pairing.split_folders or ("",):
            values = images.match(path, split)
            if values is not None and labels.write(values, split) in there:
                found[split, name_of(values)] = labels.write(values, split)
    require(bool(found), f"{folder}: no image has labels")
    return found


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` places of `count`, evenly spaced."""
    return sorted({round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(most)
                   if i < count})  # fmt: skip


def _ignored(seen: Seen) -> list[str]:
    if seen.values:
        ignored = _no_classes(seen)
        if not ignored and 255 in seen.values:
            return []
        found = "guessed: so high a value is most often no class" if ignored else "none was found"
        return [f"ignore = {ignored or [255]}  # {found}"]
    black = _no_color(seen)
    return ["ignore_colors = [[0, 0, 0]]  # guessed: black is usually not a class"] if black else []


def _no_classes(seen: Seen) -> list[int]:
    """The values that are taken for no class; none where masks are of 0 and 255, say."""
    high = sorted(value for value in seen.values if value >= _HIGHEST_GUESS)
    return high if len(seen.values) - len(high) > 1 else []


def _no_color(seen: Seen) -> bool:
    """Whether black is taken for no class: not where masks are black and white."""
    return (0, 0, 0) in seen.colors and len(seen.colors) > 2


def _classes(seen: Seen, names: Names) -> Iterator[str]:
    """An entry for each value or color, in ascending order or that of the list of names."""
    ignored = _no_classes(seen)
    for value in sorted(set(seen.values) | set(names.of_value)):
        if value in ignored:
            continue
        yield from ("", "[[classes]]")
        yield f"name = {quoted(names.of_value.get(value, f'class_{value}'))}"
        yield f"value = {value}" + ("" if value in seen.values else "  # not in the files read")
        if value in seen.palette:
            yield f"color = {list(seen.palette[value])}  # of the palette in the label files"
    for color in names.of_color or sorted(seen.colors):
        if color == (0, 0, 0) and _no_color(seen):
            continue
        yield from ("", "[[classes]]")
        yield f"name = {quoted(names.of_color.get(color, _color_name(color)))}"
        yield f"color = {list(color)}" + ("" if color in seen.colors else "  # not in those read")


def _color_name(color: Color) -> str:
    return "class_" + "_".join(map(str, color))


def _remarks(
    pairing: Pairing, seen: Seen, names: Names, read: int, label_files: int
) -> Iterator[str]:
    if names.file:
        yield f"the names of classes come from {names.file}, by the order or colors in it"
    else:
        yield "no class names were found: replace the names that begin with class_"
    if read < label_files:
        yield (
            f"{label_files - read} label files were not read: a value that only they contain is "
            "refused when training starts or reaches it"
        )
    if 0 in seen.values:
        yield "the value 0 is treated as a class; if it means no label, move it to ignore"
    if _no_classes(seen):
        yield "the ignored values are guessed"
    if _no_color(seen):
        yield "black is treated as no label; if it is a class, move it to the classes"
    if pairing.pair_count < pairing.image_count:
        yield (
            f"{pairing.image_count - pairing.pair_count} images have no labels: splits with such "
            "images are targets only"
        )


def _name(folder: Path) -> str:
    """A data set name from the folder's name that no built-in data set has."""
    plain = "".join(c if c.isalnum() or c in "_-." else "_" for c in folder.absolute().name)
    name = plain.strip("._-") or "my_data"
    return f"my_{name}" if name in (*LAYOUTS, *LABEL_SPACES) else name
