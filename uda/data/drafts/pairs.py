"""Finds the images and their labels below a folder by common names."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from uda.utilities.errors import InputError

# In lower case. Of several matches, the pair that finds the most labels is used.
_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "img_dir", "leftimg8bit", "jpegimages", "rgb",
                  "photos", "input", "inputs", "raw")  # fmt: skip
_LABEL_FOLDERS = ("labels", "label", "masks", "mask", "annotations", "annotation", "ann_dir", "ann",
                  "gtfine", "segmentationclass", "segmentationclassaug", "segmentation", "gt",
                  "ground_truth", "labelids", "targets", "output", "annot", "semantic", "semantics",
                  "semseg", "seg")  # fmt: skip
_IMAGE_ENDINGS = ("", "_leftImg8bit", "_img", "_image", "_rgb", "_sat")
# Endings of label files, the most reliable first; then words that mark other pictures.
_LABEL_ENDINGS = ("_labelIds", "_labels", "_label", "_masks", "_mask", "_segmentation", "_seg",
                  "_gt", "_ann", "_L", "")  # fmt: skip
_OTHER = re.compile(r"color|instance|trainids|disparity|depth|edge|preview|overlay", re.IGNORECASE)
SPLITS = {
    "train": "train", "training": "train", "trn": "train", "val": "val", "valid": "val",
    "validation": "val", "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
# Folders such as train_labels, images_val and trainannot.
_WITH_SPLIT = re.compile(
    rf"(?:(?P<before>.+)[_-])?(?P<split>{'|'.join(sorted(SPLITS, key=len, reverse=True))})"
    r"(?:[_-](?P<after>.+)|(?P<annot>annot))?", re.IGNORECASE,
)  # fmt: skip


class Pairing(NamedTuple):
    """Patterns of uda/data/path_patterns.py, and how many images they find labels for."""

    images: str
    labels: str
    split_folders: tuple[
        str, ...
    ]  # what {split} stands for; empty if the patterns do not contain it
    image_count: int
    pair_count: int


class _Side(NamedTuple):
    """Pictures of one kind: their folder without the split, and the name of each."""

    before: str  # with {split}, ending in a slash or empty
    files: dict[str, tuple[str, str]]  # path to (split, name below the folder)


def best_pairing(pictures: Sequence[str]) -> Pairing:
    """The patterns that find a label for most of the `pictures`, paths with slashes.

    Raises InputError when no pair of patterns fits.
    """
    sides = [*_sides(pictures), *_named_after_splits(pictures)]
    found = [p for pair in sides for p in _fitting(*pair)]
    found += _side_by_side(pictures)
    if not found:
        raise InputError(
            f"none of {len(pictures)} pictures look like images with labels: "
            "known are folders such as images/ and labels/, leftImg8bit/ and gtFine/, JPEGImages/ "
            "and SegmentationClass/, and names such as x.jpg next to x_mask.png; write the TOML "
            "file by hand, see docs/own_data.md"
        )
    return max(
        found,
        key=lambda p: (
            p.pair_count, len(p.split_folders), -_ending_rank(p.labels), -len(p.labels)
        ),
    )  # fmt: skip


def _sides(pictures: Iterable[str]) -> Iterator[tuple[_Side, _Side]]:
    """Every folder of images with every folder of labels."""
    images, labels = Counter[str](), Counter[str]()
    for path in pictures:
        for folder in PurePosixPath(path).parts[:-1]:
            images[folder] += folder.lower() in _IMAGE_FOLDERS
            labels[folder] += folder.lower() in _LABEL_FOLDERS
    for image in +images:
        for label in +labels:
            if image != label:
                for one in _of_folder(pictures, image):
                    for other in _of_folder(pictures, label):
                        if ("{split}" in one.before) == ("{split}" in other.before):
                            yield one, other


def _of_folder(pictures: Iterable[str], folder: str) -> Iterator[_Side]:
    """The pictures below folders called `folder`: one kind for each place of the split."""
    kinds: dict[str, dict[str, tuple[str, str]]] = {}
    for path in pictures:
        parts = PurePosixPath(path).parts
        if folder not in parts[:-1]:
            continue
        place = parts.index(folder)
        before, after = list(parts[: place + 1]), list(parts[place + 1 :])
        split = ""
        if len(after) > 1 and after[0].lower() in SPLITS:
            split = after.pop(0)
            before.append("{split}")
        elif place and parts[place - 1].lower() in SPLITS:
            split = before[place - 1]
            before[place - 1] = "{split}"
        kinds.setdefault("/".join(before) + "/", {})[path] = (split, "/".join(after))
    for text, own in kinds.items():
        yield _Side(text, own)


def _named_after_splits(pictures: Iterable[str]) -> Iterator[tuple[_Side, _Side]]:
    """Images and labels in folders whose names contain the split and, for labels, the kind of
    files."""
    images: dict[str, dict[str, tuple[str, str]]] = {}
    labels: dict[str, dict[str, tuple[str, str]]] = {}
    for path in pictures:
        folder, _, rest = path.partition("/")
        found = _WITH_SPLIT.fullmatch(folder) if rest else None
        if found is None:
            continue
        word = (found["before"] or found["after"] or found["annot"] or "").lower()
        start, end = found.span("split")
        kinds = labels if word in _LABEL_FOLDERS else images
        if kinds is labels or word in ("", *_IMAGE_FOLDERS):
            before = f"{folder[:start]}{{split}}{folder[end:]}/"
            kinds.setdefault(before, {})[path] = (found["split"], rest)
    for before, files in images.items():
        for other, label_files in labels.items():
            yield _Side(before, files), _Side(other, label_files)


def _side_by_side(pictures: Sequence[str]) -> Iterator[Pairing]:
    """Images and labels in the same folders, distinguished by their endings."""
    everything = _Side("", {path: ("", path) for path in pictures})
    yield from _fitting(everything, everything, apart=False)
    kinds: dict[str, dict[str, tuple[str, str]]] = {}
    for path in pictures:
        parts = PurePosixPath(path).parts
        if parts[0].lower() in SPLITS and len(parts) > 1:
            kinds.setdefault("{split}/", {})[path] = (parts[0], "/".join(parts[1:]))
    for before, files in kinds.items():
        side = _Side(before, files)
        yield from _fitting(side, side, apart=False)


def _fitting(images: _Side, labels: _Side, *, apart: bool = True) -> Iterator[Pairing]:
    """The ways in which image and label names match, in folders `apart` or in one folder."""
    label_names = set(labels.files.values())
    names = [name for _, name in images.files.values()]
    suffixes = sorted({PurePosixPath(name).suffix for name in names})
    tails = [ending + suffix for suffix in suffixes for ending in _IMAGE_ENDINGS]
    for tail in dict.fromkeys([*tails, *_common_tail(names)]):
        stems = {
            (split, name.removesuffix(tail))
            for split, name in images.files.values()
            if name.endswith(tail) and name != tail
        }
        for label_tail in _label_tails(stems, label_names):
            if not apart and label_tail == tail:  # an image is not its own label
                continue
            own = {s for s in stems if apart or not _is_label(s[1] + tail, tail, label_tail)}
            count = sum((split, stem + label_tail) in label_names for split, stem in own)
            folders = tuple(sorted({split for split, _ in own if split}))
            patterns = f"{images.before}{{name}}{tail}", f"{labels.before}{{name}}{label_tail}"
            if count:
                yield Pairing(*patterns, folders, len(own), count)


def _common_tail(names: Sequence[str]) -> list[str]:
    """What all names end with after an underscore or a hyphen, such as _camera.png, if anything."""
    common = names[0]
    for name in names:
        while not name.endswith(common):
            common = common[1:]
    found = re.search(r"[_-][^/]*\Z", common)
    return [found[0]] if found else []


def _is_label(name: str, tail: str, label_tail: str) -> bool:
    """Whether a file of the images' suffix is one of the labels, by a longer ending."""
    return len(label_tail) > len(tail) and name.endswith(label_tail)


def _label_tails(stems: set[tuple[str, str]], labels: set[tuple[str, str]]) -> list[str]:
    """What follows an image's stem in the name of a label file, as the first few images show."""
    tails: dict[str, None] = {}
    for split, stem in sorted(stems)[:8]:
        for other, name in labels:
            if other == split and name.startswith(stem) and "/" not in name[len(stem) :]:
                tails[name[len(stem) :]] = None
    fine = (tail for tail in tails if tail.lower().endswith(".png") and not tail[:1].isalnum())
    return [tail for tail in fine if not _OTHER.search(tail)]


def _ending_rank(labels: str) -> int:
    """How reliably an ending marks label files; lower is more reliable."""
    stem = PurePosixPath(labels.rpartition("}")[2])
    name = stem.name.removesuffix(stem.suffix) if stem.suffix else stem.name.partition(".")[0]
    return next(i for i, ending in enumerate(_LABEL_ENDINGS) if name.endswith(ending))
