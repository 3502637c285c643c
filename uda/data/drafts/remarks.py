"""What a draft tells its user to check."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from uda.data.datasets.recognized import Recognized
from uda.data.drafts.classes import Names, Seen, color_of, read_codes
from uda.data.drafts.entries import ignored_values, skips_black
from uda.data.drafts.pairs import Pairing
from uda.data.patterns import Pattern
from uda.utilities.errors import InputError

_SOME = 24  # pictures that are looked at, to tell labels from photographs
_FEW_VALUES = 64
_RARE = 1e-3  # share of the pixels
_ENOUGH_FILES = 4
_LISTED = 5


def share_of_labels(folder: Path, pictures: Sequence[str]) -> float:
    """Which share of some of the pictures holds few values or colors: of photographs none does."""
    few, looked_at = 0, pictures[:: max(1, len(pictures) // _SOME)]
    for path in looked_at:
        try:
            codes = read_codes(folder / path, stored=True).codes
        except InputError:
            continue
        few += codes.ndim > 2 or np.unique(codes).size <= _FEW_VALUES
    return few / max(1, len(looked_at))


def left_out(
    pairing: Pairing, pictures: Sequence[str], images: Collection[str], labels: Collection[str]
) -> Iterator[str]:
    """Pictures that are neither images nor labels of the draft, by folder and suffix."""
    if not pairing.labels:
        return
    patterns = [Pattern(text, "images") for text in pairing.images]
    splits, kinds = pairing.split_folders or ("",), dict[str, list[str]]()
    for path in pictures:
        matches = (p.match(path, split) is not None for p in patterns for split in splits)
        # An image without labels is said elsewhere.
        if path not in images and path not in labels and not any(matches):
            kinds.setdefault(path.rpartition(".")[2], []).append(path)
    for suffix, paths in sorted(kinds.items()):
        yield (
            f"{len(paths)} pictures .{suffix} are left out: they are neither images with labels "
            f"nor labels of images, the first is {paths[0]}"
        )


def class_remarks(
    pairing: Pairing,
    seen: Seen,
    names: Names,
    known: Recognized | None,
    read: int,
    label_files: int,
) -> Iterator[str]:
    """Where names and ignored values come from, and what was not looked at."""
    if known is not None:
        sure = "" if known.certain else "; compare them with the labels"
        yield f"names and ids are those of {known.name}, recognized {known.why}{sure}"
    if names.file:
        yield f"the names of classes come from {names.file}, by the order or colors in it"
    elif known is None or known.space is None:
        yield (
            "no class names were found: replace the names that begin with class_; --picture FILE "
            "draws where each value lies"
        )
    if read < label_files:
        yield (
            f"{label_files - read} label files were not read: a value that only they contain is "
            "refused when training starts or reaches it"
        )
    if known is None and 0 in seen.values:
        yield (
            f"the value 0 ({seen.statistics.words(0)}) is treated as a class; if it means no "
            "label, move it to ignore"
        )
    if known is None and ignored_values(seen, known):
        yield "the ignored values are guessed"
    if skips_black(seen):
        yield "black is treated as no label; if it is a class, move it to the classes"
    if pairing.pair_count < pairing.image_count:
        yield (
            f"{pairing.image_count - pairing.pair_count} images have no labels: splits with such "
            "images are targets only"
        )


def value_remarks(seen: Seen, names: Names, known: Recognized | None) -> Iterator[str]:
    """Values that may be no class: the highest, rare ones, and what JPEG leaves."""
    statistics = seen.statistics
    if statistics.looks_like_jpeg:
        yield (
            f"{len(statistics.thin)} of {len(statistics.of)} values are rare and lie in thin "
            f"lines, such as {_some(seen, statistics.thin)}: these labels look as if they had been "
            "saved as JPEG, which invents values at every boundary; get the original files"
        )
        return
    if known is not None:
        return
    rare = [
        code
        for code, facts in statistics.of.items()
        if statistics.files >= _ENOUGH_FILES
        and code not in names.by_code
        and facts.files <= max(1, statistics.files // 50)
        and facts.pixels < _RARE * statistics.pixels
    ]
    for code in sorted(rare)[:_LISTED]:
        facts = statistics.of[code]
        yield (
            f"{_spoken(seen, code)} has {facts.pixels} pixels, in {facts.files} of "
            f"{statistics.files} files ({facts.examples[0][1].name}): if it is a mistake there, "
            "repair the file or move the value to ignore"
        )
    values = [value for value in seen.values if value not in ignored_values(seen, known)]
    last = max(values, default=0)
    if len(values) > 2 and not ignored_values(seen, known) and last not in names.by_code:
        yield (
            f"the highest value {last} ({statistics.words(last)}) is treated as a class; in many "
            "data sets it means no label: if so, move it to ignore"
        )


def _spoken(seen: Seen, code: int) -> str:
    return f"the value {code}" if seen.values else f"the color {list(color_of(code))}"


def _some(seen: Seen, codes: Sequence[int]) -> str:
    shown = [str(code) if seen.values else str(list(color_of(code))) for code in codes[:_LISTED]]
    return ", ".join(shown)
