"""Samples of a data set, and how a data set is laid out on disk."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from uda.data.deep_images import Range
from uda.data.patterns import Pattern
from uda.labels.spaces import LabelSpace


class Sample(NamedTuple):
    """One image of a data set, with its label file where that may be read."""

    dataset: str
    stem: str  # unique within its data set, e.g. "00001" or "aachen_000000_000019"
    image: Path
    labels: Path | None  # None: the label files of this sample were not even looked for
    # A translated image may be smaller than the labels it was made from; it has their shape.
    translated: bool = False
    # Whose raw ids its label file has; None: those of the network.
    space: LabelSpace | None = None
    # Turned as its camera has noted. None: nobody has said whether its labels are; as stored.
    upright: bool | None = False
    # The values of more than 8 bits that become 0 and 255 (`deep_images`); None: it has no such.
    image_range: Range | None = None
    scenes: str = ""  # the data set whose scene of the same stem it shows; empty: its own

    @property
    def name(self) -> str:
        return f"{self.dataset}/{self.stem}"

    @property
    def scene(self) -> str:
        """Equal for images of one scene: fog that was added to it makes no other."""
        return f"{self.scenes or self.dataset}/{self.stem}"


@dataclass(frozen=True, slots=True)
class KnownSplit:
    """What the publishers of a data set say about one of its splits."""

    counts: tuple[int, ...]  # images; several where several versions are in use
    # "optional": training and scoring on other splits need none; "none": files named as labels
    # have none, or are laid out differently.
    labels: Literal["needed", "optional", "none"] = "needed"


@dataclass(frozen=True, slots=True)
class Download:
    """Where a data set is to be had."""

    page: str  # of its publishers
    files: tuple[str, ...]  # the archives or folders to take, each with its size if it is known
    unpack: str  # what to do with them


class Form(NamedTuple):
    """Patterns of one of the ways in which a data set is published; see `Layout`."""

    images: str
    labels: str


class Split(NamedTuple):
    """Where the images of a split are, and which of them belong to it."""

    name: str
    images: tuple[Pattern, ...]
    labels: Pattern | None  # None: it has no labels
    folder: str  # what {split} stands for
    list_file: str = ""  # below the data set's folder: the names that belong to it
    share: float = 0.0  # of all images, sampled by the layout's seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How a data set is laid out on disk: see uda/data/patterns.py for `images` and `labels`."""

    name: str  # as presets call it
    short_name: str  # as snapshot files call it
    folder: str  # below the data root
    label_space: LabelSpace
    splits: tuple[str, ...]
    images: str = ""  # pattern below `folder`, such as images/{split}/*.png
    labels: str = ""  # the same wildcards; empty: there are no labels
    # Other releases of the same set: the folders on disk decide which is meant, see `listing`.
    other_forms: tuple[Form, ...] = ()
    split_folders: Mapping[str, str] = field(default_factory=dict)  # what {split} is, if not it
    parts: Mapping[str, Split] = field(default_factory=dict)  # of splits with patterns of their own
    shares: Mapping[str, float] = field(default_factory=dict)  # see `Split`
    seed: int = 0  # of shares
    # Whether a sample is called by its path, all that the wildcards stand for; else by its file's
    # name without what follows the last wildcard. True where splits or folders share file names.
    named_by_path: bool = False
    note: str = ""  # for messages: where the files come from, and what to do if some are missing
    # Raises InputError when what else is in the folder does not fit: (folder, labeled).
    check: Callable[[Path, bool], None] | None = None
    # What is known of some splits, by name, and of the classes' shares of the labeled pixels, by
    # train id, if anything. The shares are rough: they only tell a data set from a mistake.
    known: Mapping[str, KnownSplit] = field(default_factory=dict)
    class_shares: tuple[float, ...] = ()
    translated: bool = False  # see `Sample`
    translated_as: str = ""  # the data set that its translated images are read as, if not this one
    scenes: str = ""  # see `Sample`
    part_of: str = ""  # the data set whose files these are: some of them, or with other classes
    # Patterns of files that belong among the images and are not read, such as other weather.
    beside: tuple[str, ...] = ()
    download: Download | None = None
    domain: Literal["", "source"] = ""  # "source": shows no domain that is scored
    orientation: Literal["", "stored", "upright"] = "stored"  # see `Sample.upright`; "": unknown
    image_range: Range | None = None  # see `Sample`
    description: str = ""  # what the user's TOML file says; empty for data sets of this library

    def part(self, split: str) -> Split:
        """The patterns of one split."""
        if split in self.parts:
            return self.parts[split]
        images = Pattern(self.images, f"{self.name}: images")
        labels = Pattern(self.labels, f"{self.name}: labels") if self.labels else None
        folder = self.split_folders.get(split, split)
        return Split(split, (images,), labels, folder=folder, share=self.shares.get(split, 0.0))

    @property
    def expected(self) -> str:
        """The layout in words, for error messages."""
        first = self.part(self.splits[0])
        texts = " or ".join(pattern.text for pattern in first.images)
        texts += f" and {first.labels.text}" if first.labels else ""
        others = "".join(f", or {form.images} and {form.labels}" for form in self.other_forms)
        return f"{texts}{others} ({self.note})" if self.note else texts + others

    def folders(self, root: Path, split: str) -> tuple[Path, Path]:
        """The folders of a split's images and of its labels, `root` being the data set's own."""
        part = self.part(split)
        images = root / part.images[0].folder(part.folder)
        return images, root / part.labels.folder(part.folder) if part.labels else images

    def label_file(self, root: Path, split: str, image: Path) -> Path:
        """Where the labels of an image of `split` belong."""
        part = self.part(split)
        path = image.relative_to(root).as_posix()
        values = (pattern.match(path, part.folder) for pattern in part.images)
        found = next((value for value in values if value is not None), None)
        if part.labels is None or found is None:  # it has none, or is an image of another split
            return root / f"no labels of {path}"
        return root / part.labels.write(found, part.folder)


def seeded_split(count: int, shares: Sequence[float], *, seed: int) -> tuple[list[int], ...]:
    """0 to `count` - 1, sampled by `seed` into parts of about these `shares`, which sum to 1.

    Each part is in ascending order, and together they have every number once.
    """
    order = np.random.default_rng(seed).permutation(count)
    ends = np.round(np.cumsum(shares) * count).astype(int)
    return tuple(sorted(part.tolist()) for part in np.split(order, ends[:-1]))


def evenly_spaced(samples: Sequence[Sample], most: int) -> list[Sample]:
    """Up to `most` of `samples`, the first and the last among them."""
    places = np.linspace(0, len(samples) - 1, min(len(samples), most)).round()
    return [samples[place] for place in places.astype(int)]


def is_beside(layout: Layout, path: str) -> bool:
    """Whether a file, by its path below the data set's folder, is one of `Layout.beside`."""
    patterns = (Pattern(text, f"{layout.name}: beside") for text in layout.beside)
    return any(pattern.match(path, "") is not None for pattern in patterns)


def is_left_by_mac(name: str) -> bool:
    """Whether a file of this name has the attributes of another: `._a.png` those of `a.png`."""
    return name.startswith("._")
