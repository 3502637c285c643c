"""A first version of the TOML file that describes a data set, from a look at its folder.

What it says was found or guessed, and it says which; it is read and listed before it is written.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from uda.data.datasets.recognized import Recognized, recognize
from uda.data.described.file import description_of
from uda.data.described.layouts import layout_of, plain_name
from uda.data.drafts.classes import Names, Seen, look_at_labels, names_beside
from uda.data.drafts.contact_sheet import contact_sheet
from uda.data.drafts.entries import class_lines, ignored_lines, ignored_values, skips_black
from uda.data.drafts.images import image_lines
from uda.data.drafts.pairs import (
    Pairing,
    best_pairing,
    images_alone,
    jpeg_labels,
    unnamed_pairings,
)
from uda.data.drafts.remarks import class_remarks, left_out, share_of_labels, value_remarks
from uda.data.drafts.splits import quoted, split_lines
from uda.data.file_tree import pictures_below
from uda.data.known_files import KnownFiles
from uda.data.listing import list_split
from uda.data.patterns import Pattern, name_of
from uda.data.registry import LABEL_SPACES, LAYOUTS, check_sizes
from uda.data.samples import evenly_spaced
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import InputError, require

_LOOKED_AT = 200  # label files whose values are read
_SIZES_LOOKED_AT = 16


class Draft(NamedTuple):
    """The file's text, and what the user should check."""

    text: str
    to_check: list[str]
    facts: dict[str, object]
    seen: Seen | None  # None: there are no labels
    names: Mapping[int, str]  # of values or colors (see `LabelStatistics`), as the draft has them
    images: Mapping[Path, Path]  # the image of each label file


def draft_description(folder: Path, output: Path, *, classes_of: str = "") -> Draft:
    """The text of a file at `output` that describes the data set in `folder`; `classes_of`: the
    data set or TOML file whose classes images without labels have.

    Raises InputError when the folder's layout is not recognized.
    """
    require(folder.is_dir(), f"{folder} is not a folder: give one with images and labels")
    pictures = pictures_below(folder)
    require(bool(pictures), f"there are no images (PNG, JPEG, TIFF, BMP, WebP) below {folder}")
    pairing = _pairing(folder, pictures)
    pairs = _pairs(folder, pairing, pictures) if pairing.labels else {}
    splits = split_lines(folder, pairing, pictures, labeled=set(pairs))
    of_image = dict(pairs.values())
    labels = sorted(set(of_image.values()))
    read = [labels[i] for i in _spread(len(labels), _LOOKED_AT)]
    seen = look_at_labels([folder / path for path in read]) if pairing.labels else None
    names, known = Names({}, {}), None
    if seen is not None:
        names = names_beside(folder, seen)
        known = recognize(seen.values, [path.rpartition("/")[2] for path in read])
    images = [folder / path for path in of_image] or [folder / path for path in pictures]
    to_check = [*splits.remarks, *left_out(pairing, pictures, set(of_image), set(labels))]
    if seen is not None:
        to_check += [
            *class_remarks(pairing, seen, names, known, len(read), len(labels)),
            *value_remarks(seen, names, known),
        ]
    else:
        to_check.append(
            "no labels were found: these images are a target, which needs none; its classes are "
            "those of the source, "
            + (classes_of or "to be named: classes_of = ... or --classes-of NAME")
        )
    by_image = {folder / image: folder / own for image, own in of_image.items()}
    of_images = image_lines(images, by_image)
    to_check += of_images.remarks
    name = _name(folder)
    lines = [
        "# A draft of scripts/describe_dataset.py; docs/own_data.md says what each key means.",
        f"# Found: {pairing.image_count} images, {pairing.pair_count} of them with labels; the "
        f"values below are those of {len(read)} of {len(labels)} label files.",
        *(f"# CHECK: {remark}" for remark in to_check),
        "",
        f"name = {quoted(name)}",
        f"root = {quoted(os.path.relpath(folder, output.parent))}",
        f"images = {_images_text(pairing.images)}",
        *([f"labels = {quoted(pairing.labels)}"] if pairing.labels else []),
        *of_images.lines,
        *(ignored_lines(seen, known) if seen is not None else []),
        *_classes_of(classes_of, output),
        *splits.lines,
        *(class_lines(seen, names, known) if seen is not None else _no_classes(classes_of)),
    ]
    text = "\n".join(lines) + "\n"
    counts = _counts(text, output)
    facts: dict[str, object] = {
        "name": name,
        "images": ", ".join(pairing.images),
        "labels": pairing.labels or "none",
    }
    if known is not None:
        facts["recognized"] = f"{known.name}, {known.why}"
    facts |= counts
    facts["classes"] = text.count("[[classes]]") if seen is not None else "those of the source"
    by_labels = {own: image for image, own in by_image.items()}
    return Draft(text, to_check, facts, seen, _spoken_names(seen, names, known), by_labels)


def _pairing(folder: Path, pictures: Sequence[str]) -> Pairing:
    """Images and labels by common names, or else by their contents, or images alone."""
    try:
        return best_pairing(pictures)
    except InputError:
        jpeg = jpeg_labels(pictures)
        require(
            not jpeg,
            f"{folder / jpeg} is where labels belong, and is a JPEG file: JPEG invents values at "
            "every boundary, so it cannot be read as labels; get the original files (PNG, TIFF)",
        )
        for pairing in unnamed_pairings(pictures):
            pairs = dict(_pairs(folder, pairing, pictures).values())
            if share_of_labels(folder, [*pairs.values()]) == 1 and not share_of_labels(
                folder, [*pairs]
            ):
                return pairing
        if share_of_labels(folder, pictures):
            raise
        return images_alone(pictures)


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


def _pairs(
    folder: Path, pairing: Pairing, pictures: Sequence[str]
) -> dict[tuple[str, str], tuple[str, str]]:
    """Image and labels of all images that have some, by the folder of the split and the image's
    name."""
    patterns = [Pattern(text, "images") for text in pairing.images]
    labels, there = Pattern(pairing.labels, "labels"), set(pictures)
    found = {}
    for path in pictures:
        for split in pairing.split_folders or ("",):
            for pattern in patterns:
                values = pattern.match(path, split)
                if values is not None and labels.write(values, split) in there - {path}:
                    found[split, name_of(values)] = path, labels.write(values, split)
    require(bool(found), f"{folder}: no image has labels")
    return found


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` places of `count`, evenly spaced."""
    return sorted({round(i * (count - 1) / max(1, min(count, most) - 1)) for i in range(most)
                   if i < count})  # fmt: skip


def _images_text(patterns: Sequence[str]) -> str:
    several = f"[{', '.join(map(quoted, patterns))}]"
    return several if len(patterns) > 1 else quoted(patterns[0])


def _classes_of(name: str, output: Path) -> list[str]:
    if name.endswith(".toml"):
        name = os.path.relpath(name, output.parent)
    return [f"classes_of = {quoted(name)}"] if name else []


def _no_classes(classes_of: str) -> Iterator[str]:
    """The classes of images without labels."""
    if classes_of:
        return
    yield from ("", "[[classes]]  # replace it by classes_of = ... at the top of this file")
    yield 'name = "unknown"'
    yield "value = 0"


def draw_values(draft: Draft, path: Path) -> None:
    """Writes the contact sheet of a draft with labels to `path`, a PNG."""
    assert draft.seen is not None
    sheet = contact_sheet(draft.seen, draft.names, draft.images)
    with replacing(path) as file:
        sheet.save(file, "PNG")


def _spoken_names(seen: Seen | None, names: Names, known: Recognized | None) -> dict[int, str]:
    """What the draft calls each value or color, for the contact sheet."""
    if seen is None:
        return {}
    found = dict.fromkeys(seen.statistics.of, "")
    found |= names.by_code
    if known is not None and known.space is not None:
        found |= {v: known.space.classes[t] for v, t in known.space.raw_to_train.items() if t < 255}
    ignored = ignored_values(seen, known) or ([0] if skips_black(seen) else [])
    return found | dict.fromkeys(ignored, "ignored")


def _name(folder: Path) -> str:
    """A data set name from the folder's name that no built-in data set has."""
    name = plain_name(folder, otherwise="my_data")
    return f"my_{name}" if name in (*LAYOUTS, *LABEL_SPACES) else name
