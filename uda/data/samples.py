"""Samples of a data set, and what a data set on disk must say about itself."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from uda.labels.spaces import LabelSpace
from uda.utilities.errors import InputError


class Sample(NamedTuple):
    """One image of a data set, with its label file where that may be read."""

    dataset: str
    stem: str  # unique within its data set, e.g. "00001" or "aachen_000000_000019"
    image: Path
    labels: Path | None  # None: the label files of this sample were not even looked for
    # A translated image may be smaller than the labels it was made from; it has their shape.
    translated: bool = False
    # Whose raw ids its label file holds; None: those of whoever reads it.
    space: LabelSpace | None = None
    upright: bool = False  # turned as its camera has noted; an image with labels is as stored

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.stem}"


@dataclass(frozen=True, slots=True)
class KnownSplit:
    """What the publishers of a data set say of one of its splits."""

    counts: tuple[int, ...]  # images; several where several versions are in use
    # "optional": training and scoring on other splits goes without; "none": files named as labels
    # hold none, or lie in another layout.
    labels: Literal["needed", "optional", "none"] = "needed"


@dataclass(frozen=True, slots=True)
class Layout:
    """How a data set lies on disk."""

    name: str  # as presets call it
    short_name: str  # as snapshot files call it
    folder: str  # below the data root
    splits: tuple[str, ...]
    label_space: LabelSpace
    list_samples: Callable[[Path, str, bool], list[Sample]]  # (root, split, labeled)
    expected: str  # the layout in words, for error messages
    folders: Callable[[Path, str], tuple[Path, Path]]  # (root, split): of images and of labels
    image_suffix: str
    label_suffix: str
    # What is known of some splits, by name, and of the classes' shares of the labeled pixels, by
    # train id, if anything. The shares are rough: they only tell a data set from a mistake.
    known: Mapping[str, KnownSplit] = field(default_factory=dict)
    class_shares: tuple[float, ...] = ()
    translated: bool = False  # see `Sample`
    # Where the labels of an image belong, when suffixes do not say it: (root, split, image).
    find_labels: Callable[[Path, str, Path], Path] | None = None
    description: str = ""  # what a file of the user's says; empty for data sets of this library
    unlabeled: tuple[str, ...] = ()  # splits that have no labels by their description
    # The name of an image's label file, where it is not the image's with another suffix.
    label_name: Callable[[str], str] | None = None

    def label_file(self, root: Path, split: str, image: Path) -> Path:
        """Where the labels of an image of `split` belong."""
        if self.find_labels is not None:
            return self.find_labels(root, split, image)
        images, labels = self.folders(root, split)
        name = image.name.removesuffix(self.image_suffix) + self.label_suffix
        if self.label_name is not None:
            name = self.label_name(image.name)
        return labels / image.parent.relative_to(images) / name


def list_split(layout: Layout, root: Path, split: str, *, labeled: bool) -> list[Sample]:
    """The samples of one split in their fixed, sorted order.

    With `labeled` false no label folder is opened, listed or looked for. Raises InputError when the
    split is unknown, a folder is missing or empty, or an image has no label.
    """
    if split not in layout.splits:
        raise InputError(f"{layout.name} has no split {split!r}; it has {', '.join(layout.splits)}")
    samples = layout.list_samples(root, split, labeled)
    if not samples:
        raise InputError(f"{root}: no images of split {split!r}; expected {layout.expected}")
    return [sample._replace(space=layout.label_space) for sample in samples]


def list_files(folder: Path, suffix: str, expected: str) -> list[str]:
    """Sorted names of the files in `folder` that end in `suffix`; InputError if it is not there.

    What a Mac leaves beside the files it copies is none of them; see `is_left_by_mac`.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
        return sorted(n for n in names if n.endswith(suffix) and not is_left_by_mac(n))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{folder} does not exist; expected {expected}") from None
    except PermissionError:
        raise InputError(f"{folder} cannot be read: permission denied") from None


def seeded_split(count: int, shares: Sequence[float], *, seed: int) -> tuple[list[int], ...]:
    """0 up to `count`, drawn by `seed` into parts of about these `shares`, which sum to 1.

    Each part is in ascending order, and all of them together hold every number once.
    """
    drawn = np.random.default_rng(seed).permutation(count)
    ends = np.round(np.cumsum(shares) * count).astype(int)
    return tuple(sorted(part.tolist()) for part in np.split(drawn, ends[:-1]))


def evenly_spaced(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Up to `most` of `samples`, the first and the last among them."""
    places = np.linspace(0, len(samples) - 1, min(len(samples), most)).round()
    return [samples[place] for place in places.astype(int)]


def is_left_by_mac(name: str) -> bool:
    """Whether a file of this name holds the attributes of another: `._a.png` those of `a.png`."""
    return name.startswith("._")
