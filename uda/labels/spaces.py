"""Label spaces: class names, raw ids, train ids and colors of what is segmented."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from uda.utilities.errors import InputError, require

IGNORE_INDEX = 255  # train id of every pixel that is neither learned nor scored

CHANNELS = ("red", "green", "blue")
UNLABELED = "unlabeled"  # as files of polygons call what no polygon covers

_INVALID = 254  # marks, in the lookup table, a value that is not a raw id: no class has it


class Coding(NamedTuple):
    """How label files store raw ids: as values of gray or palette pictures, unless said here."""

    colors: tuple[tuple[int, int, int], ...] = ()  # as LabelSpace.raw_colors
    channel: str = ""  # as LabelSpace.raw_channel
    values: tuple[tuple[int, int], ...] = ()  # as LabelSpace.raw_values
    # Gray of 1, 2 or 4 bits: whether the stored values are meant, not their share of white times
    # 255. A program that makes files smaller may write 0 and 255 in one bit.
    stored: bool = False
    deep: bool = False  # as LabelSpace.raw_deep
    names: tuple[tuple[str, int], ...] = ()  # as LabelSpace.raw_names


@dataclass(frozen=True, slots=True)
class LabelSpace:
    """The classes of a segmentation task, in the order of their train ids 0..C-1."""

    name: str
    classes: tuple[str, ...]
    report_names: tuple[str, ...]  # as the result tables print them
    palette: tuple[tuple[int, int, int], ...]  # RGB, 0..255
    # Every raw id that may occur in a file; ignored ones map to 255. A class may have none: its
    # pixels are not in these label files. A plain dict, because loader processes may have to be
    # sent a label space, and views of dicts cannot be.
    raw_to_train: Mapping[int, int]
    # Train ids that change places when an image is mirrored, such as those of left and right hands.
    mirror_swaps: tuple[tuple[int, int], ...] = ()
    unscored: tuple[int, ...] = ()  # train ids that are learned, but no part of any mean
    # Where label files are RGB pictures: the color at place i means the raw id i, ...
    raw_colors: tuple[tuple[int, int, int], ...] = ()
    raw_channel: str = ""  # ... or the raw id is the value of this channel, one of CHANNELS
    # Where values of up to 16 bits stand for raw ids: (value, raw id) of each.
    raw_values: tuple[tuple[int, int], ...] = ()
    raw_deep: bool = False  # that channel has 16 bits; a file of 8 bits is another data set's
    # Where label files are JSON files of polygons: the raw id of each name in them. Polygons of
    # other names are refused; pixels of no polygon have the id of "unlabeled".
    raw_names: Mapping[str, int] = field(default_factory=dict)
    _table: bytes = field(init=False, repr=False, compare=False)  # train id of each raw id

    def __post_init__(self) -> None:
        self._check()
        table = bytes(self.raw_to_train.get(raw_id, _INVALID) for raw_id in range(256))
        object.__setattr__(self, "_table", table)

    def __hash__(self) -> int:  # dataclass would hash the dict, too
        return hash((self.name, self.classes))

    def _check(self) -> None:
        """Raises InputError where the fields contradict each other: they may come from a file."""
        classes = range(len(self.classes))
        names = len(set(self.classes)) == len(self.classes) == len(self.report_names)
        colors = [level for color in self.palette for level in color]
        swapped = [train_id for pair in self.mirror_swaps for train_id in pair]
        for fits, what in (
            (0 < len(classes) < IGNORE_INDEX, f"{len(classes)} classes; allowed: 1 to 254"),
            (names, "two classes of one name, or not a name for each"),
            (
                len(self.palette) == len(classes) and all(0 <= level <= 255 for level in colors),
                "not a color of levels 0 to 255 for each class",
            ),
            (
                all(0 <= raw_id <= 255 for raw_id in self.raw_to_train)
                and set() < set(self.raw_to_train.values()) - {IGNORE_INDEX} <= set(classes),
                "raw ids outside 0 to 255, or that mean no class",
            ),
            (
                not self.raw_colors
                or (
                    set(self.raw_to_train) == set(range(len(self.raw_colors)))
                    and len(set(self.raw_colors)) == len(self.raw_colors) < IGNORE_INDEX
                    and all(0 <= level <= 255 for color in self.raw_colors for level in color)
                ),
                "colors of label files that occur twice, are none, or are not one for each raw id",
            ),
            (
                not self.raw_channel or (self.raw_channel in CHANNELS and not self.raw_colors),
                f"a channel of label files that is not one of {', '.join(CHANNELS)}",
            ),
            (not self.raw_deep or bool(self.raw_channel), "16 bits, but of no channel"),
            (
                not self.raw_names
                or (
                    set(self.raw_names.values()) <= set(self.raw_to_train)
                    and UNLABELED in self.raw_names
                    and not self.raw_channel
                    and not self.raw_colors
                ),
                f"names of polygons that mean no raw id, or none of them {UNLABELED!r}",
            ),
            (
                not self.raw_values
                or (
                    all(0 <= value <= 65535 for value, _ in self.raw_values)
                    and len(dict(self.raw_values)) == len(self.raw_values)
                    and {raw_id for _, raw_id in self.raw_values} == set(self.raw_to_train)
                    and not self.raw_colors
                ),
                "values of label files that occur twice, are outside 0 to 65535, or mean no raw id",
            ),
            (
                len(set(swapped)) == len(swapped) and set(swapped) <= set(classes),
                "classes in mirror_swaps that are none, or stand there twice",
            ),
            (
                set(self.unscored) < set(classes),
                "classes in unscored that are none, or none that is scored",
            ),
        ):
            require(fits, f"label space {self.name}: {what}")

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def coding(self) -> "Coding":
        """How label files store raw ids."""
        stored = 255 not in self.raw_to_train and not self.raw_values
        names = tuple(self.raw_names.items())
        return Coding(
            self.raw_colors, self.raw_channel, self.raw_values, stored, self.raw_deep, names
        )

    @property
    def not_scored(self) -> tuple[int, ...]:
        """The train ids that are in no mean: `unscored` ones, and those without a raw id."""
        scored = set(self.labeled) - set(self.unscored)
        return tuple(train_id for train_id in range(self.num_classes) if train_id not in scored)

    @property
    def labeled(self) -> tuple[int, ...]:
        """The train ids that some raw id stands for, ascending: mostly all of them."""
        return tuple(sorted(set(self.raw_to_train.values()) - {IGNORE_INDEX}))

    @property
    def trained_raw_ids(self) -> tuple[int, ...]:
        """The raw ids whose train id is not 255."""
        return tuple(r for r, train_id in self.raw_to_train.items() if train_id != IGNORE_INDEX)

    def may_hold_train_ids(self, largest: int) -> bool:
        """Whether label files whose largest value but 255 is `largest` may be train ids.

        Train ids are raw ids one by one, so one file proves nothing; many files of raw ids show sky
        or a car at least. Where raw ids are train ids, or only one higher, nothing can be said.
        """
        most = self.num_classes - 1
        return largest <= most < max(self.trained_raw_ids) - 1

    def to_train_ids(self, raw: npt.NDArray[np.uint8], origin: str) -> npt.NDArray[np.uint8]:
        """Train ids of raw label ids, both (H, W) uint8; ignored classes become 255.

        Raises InputError, naming `origin`, when a value is not a raw id of this label space. Most
        often the file holds train ids already; mapping them again would train on nonsense.
        """
        # Five times as fast as indexing an array.
        mapped = bytearray(np.ascontiguousarray(raw).data).translate(self._table)
        train = np.frombuffer(mapped, np.uint8).reshape(raw.shape)
        if (train == _INVALID).any():
            strangers = sorted({int(value) for value in np.unique(raw)} - set(self.raw_to_train))
            raise InputError(
                f"{origin}: label values {_some(strangers)} are outside the raw ids of "
                f"{self.name} ({min(self.raw_to_train)}..{max(self.raw_to_train)}); "
                f"{self._hint(strangers)}: use the data set's original labels; "
                "of a data set of your own, list all values in the file that describes it"
            )
        return train

    def _hint(self, strangers: Sequence[int]) -> str:
        """What label files with these values mostly are."""
        if self.stores_train_ids and strangers[0] < IGNORE_INDEX:
            return "these are train ids in this data set, the file has other ids"
        return "255 means the file has train ids already"

    @property
    def stores_train_ids(self) -> bool:
        """Whether raw ids are train ids, as far as they mean a class."""
        return all(self.raw_to_train[raw_id] == raw_id for raw_id in self.trained_raw_ids)

    def to_raw_ids(self, train: npt.NDArray[np.uint8], *, ignored: int) -> npt.NDArray[np.uint8]:
        """Raw ids of train ids, both (H, W) uint8; pixels of 255, and of classes without a raw id,
        become `ignored`."""
        table = np.full(256, ignored, np.uint8)
        for raw_id, train_id in self.raw_to_train.items():
            if train_id != IGNORE_INDEX:
                table[train_id] = raw_id
        return table[train]

    @property
    def mirrored(self) -> tuple[int, ...]:
        """What each train id is called in the mirror image."""
        names = list(range(self.num_classes))
        for one, other in self.mirror_swaps:
            names[one], names[other] = other, one
        return tuple(names)

    def mirror(self, train: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """Train ids (H, W) uint8 of the mirror image; 255 stays."""
        flipped = train[:, ::-1]
        if not self.mirror_swaps:
            return flipped
        table = np.arange(256, dtype=np.uint8)
        table[: self.num_classes] = self.mirrored
        return table[flipped]

    def colorize(self, train: npt.NDArray[np.integer]) -> npt.NDArray[np.uint8]:
        """The palette's picture (H, W, 3) uint8 RGB of train ids (H, W); 255 is black."""
        colors = np.zeros((256, 3), np.uint8)
        colors[: self.num_classes] = self.palette
        return colors[train]


def _some(values: list[int], limit: int = 5) -> str:
    shown = ", ".join(str(value) for value in values[:limit])
    return shown if len(values) <= limit else f"{shown}, ... ({len(values)} in all)"


_TRAINED_RAW_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)

# Of folders of images, which take the classes of what they are used with.
NO_CLASSES = LabelSpace(
    name="unlabeled",
    classes=("unlabeled",),
    report_names=("unlabeled",),
    palette=((0, 0, 0),),
    raw_to_train={0: 0},
)

CITYSCAPES = LabelSpace(
    name="cityscapes19",
    classes=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    ),
    # The experiment log's spelling, "motocycle" included: its tables are compared line by line.
    report_names=(
        "road", "sidewalk", "building", "wall", "fence", "pole", "light", "sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motocycle", "bicycle",
    ),
    palette=(
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    ),
    # 34 is GTA5's license plate; Cityscapes stores none (its id is -1).
    raw_to_train=dict.fromkeys(range(35), IGNORE_INDEX)
    | {raw_id: train_id for train_id, raw_id in enumerate(_TRAINED_RAW_IDS)},
)  # fmt: skip
