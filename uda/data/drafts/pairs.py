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
_OTHER = re.compile(r"color|inst|disparity|depth|edge|preview|overlay|panoptic", re.IGNORECASE)
_LAST = re.compile(r"trainids", re.IGNORECASE)  # labels, too, but made of others
_MOST_FOLDERS = 8  # that are tried with each other
_LABEL_SUFFIXES = (".png", ".tif", ".tiff", ".bmp")
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
    """Patterns of uda/data/patterns.py, and how many images they find labels for."""

    images: tuple[str, ...]  # one for each suffix
    labels: str  # "" where there are none
    split_folders: tuple[
        str, ...
    ]  # what {split} stands for; empty if the patterns do not contain it
    image_count: int
    pair_count: int


class _Side(NamedTuple):
    """Pictures of one kind: their folder without the split, and the name of each."""

    before: str  # with {split}, ending in a slash or empty
    files: dict[str, tuple[str, str]]  # path to (split, name below the folder)


def jpeg_labels(pictures: Sequence[str]) -> str:
    """The first JPEG file that is where labels belong; "" if there is none."""
    folders = {*_LABEL_FOLDERS, "jpeg_masks"}
    of_labels = (
        path
        for path in pictures
        if path.lower().endswith((".jpg", ".jpeg"))
        and folders & set(PurePosixPath(path.lower()).parts[:-1])
    )
    return next(of_labels, "")


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


def unnamed_pairings(pictures: Sequence[str]) -> list[Pairing]:
    """Pairs of folders of any name whose pictures are called alike, most of them first: which of
    the two has labels, their contents say."""
    folders = dict.fromkeys(PurePosixPath(path).parts[0] for path in pictures if "/" in path)
    kinds = {folder: list(_of_folder(pictures, folder)) for folder in [*folders][:_MOST_FOLDERS]}
    found = [
        pairing
        for first in kinds
        for second in kinds
        if first != second
        for one in kinds[first]
        for other in kinds[second]
        if ("{split}" in one.before) == ("{split}" in other.before)
        for pairing in _fitting(one, other)
    ]
    return sorted(found, key=lambda p: (-p.pair_count, _ending_rank(p.labels), len(p.labels)))


def images_alone(pictures: Sequence[str]) -> Pairing:
    """The patterns of all `pictures`, as images without labels."""
    parts = [PurePosixPath(path).parts for path in pictures]
    place = next(
        (
            depth
            for depth in range(min(map(len, parts)) - 1)
            if all(own[depth].lower() in SPLITS for own in parts)
            and len({own[:depth] for own in parts}) == 1
        ),
        None,
    )
    suffixes = Counter(PurePosixPath(path).suffix for path in pictures)
    if place is None:
        folders = [own[:-1] for own in parts]
        shared = 0
        while all(len(own) > shared and own[shared] == folders[0][shared] for own in folders):
            shared += 1
        before = "".join(f"{name}/" for name in folders[0][:shared])
        splits: tuple[str, ...] = ()
    else:
        before = "".join(f"{name}/" for name in parts[0][:place]) + "{split}/"
        splits = tuple(sorted({own[place] for own in parts}))
    patterns = tuple(f"{before}{{name}}{suffix}" for suffix, _ in suffixes.most_common())
    return Pairing(patterns, "", splits, len(pictures), 0)


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
    """The ways in which image and label names match, in folders `apart` or in one folder.

    Images of one ending may have several suffixes, such as .jpg, .JPG and .png; those are used that
    some labels belong to.
    """
    label_names = set(labels.files.values())
    names = [name for _, name in images.files.values()]
    bare = [name.removesuffix(PurePosixPath(name).suffix) for name in names]
    for ending in dict.fromkeys([*_IMAGE_ENDINGS, *_common_tail(bare)]):
        stems: dict[str, set[tuple[str, str]]] = {}  # by suffix
        for split, name in images.files.values():
            suffix = PurePosixPath(name).suffix
            if name.endswith(ending + suffix) and name != ending + suffix:
                stem = name.removesuffix(ending + suffix)
                stems.setdefault(suffix, set()).add((split, stem))
        for label_tail in _label_tails(set().union(*stems.values()), label_names):
            yield from _of_tail(images, labels, stems, ending, label_tail, apart=apart)


def _of_tail(
    images: _Side,
    labels: _Side,
    stems: dict[str, set[tuple[str, str]]],
    ending: str,
    label_tail: str,
    *,
    apart: bool,
) -> Iterator[Pairing]:
    """The pairing of images of this ending with labels of that one, if it finds any."""
    label_names = set(labels.files.values())
    own: dict[str, set[tuple[str, str]]] = {}
    pairs: dict[str, int] = {}
    for suffix, found in stems.items():
        tail = ending + suffix
        if not apart and label_tail == tail:  # an image is not its own label
            continue
        own[suffix] = {s for s in found if apart or not _is_label(s[1] + tail, tail, label_tail)}
        pairs[suffix] = sum(
            (split, stem + label_tail) in label_names for split, stem in own[suffix]
        )
    used: set[tuple[str, str]] = set()
    suffixes = []
    for suffix in sorted(own, key=lambda suffix: (-pairs[suffix], suffix)):
        if pairs[suffix] and not own[suffix] & used:  # two images of one name could not be told
            suffixes.append(suffix)
            used |= own[suffix]
    if suffixes:
        count = sum(pairs[suffix] for suffix in suffixes)
        folders = tuple(sorted({split for split, _ in used if split}))
        patterns = tuple(f"{images.before}{{name}}{ending}{suffix}" for suffix in suffixes)
        yield Pairing(patterns, f"{labels.before}{{name}}{label_tail}", folders, len(used), count)


def _common_tail(names: Sequence[str]) -> list[str]:
    """What all names end with after an underscore or a hyphen, such as _camera, if anything."""
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
    """What follows an image's stem in the names of label files, of all splits."""
    tails: dict[str, None] = {}
    for split, name in sorted(labels):
        start = name.rfind("/") + 1
        for place in range(start + 1, len(name)):
            if not name[place].isalnum() and (split, name[:place]) in stems:
                tails[name[place:]] = None
    fine = (tail for tail in tails if tail.lower().endswith(_LABEL_SUFFIXES))
    return [tail for tail in fine if not _OTHER.search(tail)]


def _ending_rank(labels: str) -> int:
    """How reliably an ending marks label files; lower is more reliable."""
    if _LAST.search(labels):
        return len(_LABEL_ENDINGS)
    stem = PurePosixPath(labels.rpartition("}")[2])
    name = stem.name.removesuffix(stem.suffix) if stem.suffix else stem.name.partition(".")[0]
    return next(i for i, ending in enumerate(_LABEL_ENDINGS) if name.endswith(ending))
