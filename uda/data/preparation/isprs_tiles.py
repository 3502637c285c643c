"""The large TIFFs of ISPRS Vaihingen and Potsdam -> tiles that `uda/data/datasets/isprs.py` lists.

Tiles bear the names that mmsegmentation's converters give them, but really overlap: origins are
multiples of the stride, the last one is moved back to the border, and none occurs twice.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.datasets.isprs_areas import AREAS, Area, Channels, IsprsName
from uda.data.files import MAX_PIXELS, read_tiff, tiff_size
from uda.utilities.atomic_files import clear_write_errors, remove_partial, replacing
from uda.utilities.errors import InputError, require, shown
from uda.utilities.locks import holds_nothing, sole_writer
from uda.utilities.reading import SMALL, parsed_json, read_bytes, why

_LABEL_COLORS = (  # by raw id: nothing, then the classes of uda/data/datasets/isprs.py; RGB
    (0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0),
)  # fmt: skip
_NO_COLOR = 255  # marks, while labels are read, a pixel of no such color
_ROWS = 512  # of labels that are processed at once
MOST_TOLERANCE = 63  # gray levels; farther than this a color is as near to the next one

Bytes = npt.NDArray[np.uint8]


def labels_of_colors(colors: Bytes, origin: str, *, tolerance: int = 0) -> Bytes:
    """Raw ids (H, W) of the colors (H, W, 3) RGB of a label picture: 0 black (nothing), 1 to 6 the
    classes; each channel may be off by `tolerance`.

    Raises InputError, naming `origin`, with the commonest other color, how often it occurs and
    where first.
    """
    table = np.full(8, _NO_COLOR, np.uint8)  # by which of red, green and blue are bright
    for raw_id, color in enumerate(_LABEL_COLORS):
        table[_brightness(np.array(color))] = raw_id
    ids = np.empty(colors.shape[:2], np.uint8)
    for first in range(0, len(colors), _ROWS):  # 36 million pixels at once would take gigabytes
        rows = colors[first : first + _ROWS]
        near = (np.minimum(rows, 255 - rows) <= tolerance).all(axis=2)
        ids[first : first + _ROWS] = np.where(near, table[_brightness(rows)], _NO_COLOR)
    strangers = ids == _NO_COLOR
    if strangers.any():
        raise _strange_colors(colors, strangers, origin)
    return ids


def _brightness(colors: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """0 to 7 for colors (..., 3): a bit for each of red, green and blue that is above one half."""
    red, green, blue = np.moveaxis(colors >= 128, -1, 0).astype(np.uint8)
    return 4 * red + 2 * green + blue


def _strange_colors(colors: Bytes, strangers: npt.NDArray[np.bool_], origin: str) -> InputError:
    found, counts = np.unique(colors[strangers], axis=0, return_counts=True)
    commonest = found[counts.argmax()]
    row, column = np.argwhere((colors == commonest).all(axis=2))[0].tolist()
    color = ", ".join(map(str, commonest.tolist()))
    return InputError(
        f"{origin}: {int(strangers.sum())} pixels have no color of the legend; ({color}) has "
        f"{int(counts.max())} of them, the first at column {column}, row {row}; allowed (RGB): "
        f"{', '.join(str(c) for c in _LABEL_COLORS)}; replace the file or, if such colors are "
        "near those, let each channel be off by N levels with --color-tolerance N"
    )


SETTINGS = "tiles.json"  # next to the tiles: how they were made


@dataclass(frozen=True, kw_only=True, slots=True)
class TileSettings:
    """What decides the bytes of every tile."""

    dataset: IsprsName
    clip: int = 512  # side of a tile, pixels
    stride: int = 256  # between the origins of neighbors of the training split, pixels
    # The same of the other split; None: `clip`, so that only what the last row and column repeat is
    # scored twice.
    val_stride: int | None = None
    channels: Channels = "IRRG"  # near infrared, red, green; Vaihingen has no others
    pixel_cm: float = 9.0  # on the ground: areas of another resolution are resized to this one
    color_tolerance: int = 0  # gray levels by which each channel of a label's color may be off

    def check(self) -> None:
        """Raises InputError when a value is not allowed."""
        for name, kind in (("dataset", IsprsName), ("channels", Channels)):
            value, allowed = getattr(self, name), get_args(kind)
            require(value in allowed, f"--{name} is {value!r}; allowed: {', '.join(allowed)}")
        require(self.clip > 0, f"--clip is {self.clip}; allowed: 1 or more pixels")
        for name, stride in (("stride", self.stride), ("val-stride", self.val_stride)):
            require(
                stride is None or 0 < stride <= self.clip,
                f"--{name} is {stride}; allowed: 1 to {self.clip}, the clip: a larger one would "
                "leave pixels out",
            )
        require(
            self.dataset == "potsdam" or self.channels == "IRRG",
            "--channels RGB: Vaihingen has no blue channel; use --channels IRRG",
        )
        require(self.pixel_cm > 0, f"--pixel-cm is {self.pixel_cm}; it must be above 0")
        require(
            0 <= self.color_tolerance <= MOST_TOLERANCE,
            f"--color-tolerance is {self.color_tolerance}; allowed: 0 to {MOST_TOLERANCE}",
        )


class TileCount(NamedTuple):
    """How many tiles a folder contains."""

    train: int
    val: int


def write_tiles(
    raw: Path,
    output: Path,
    settings: TileSettings,
    *,
    progress: Callable[[int], None] = lambda areas: None,
) -> TileCount:
    """Tiles every area of the data set unpacked below `raw` into `output`; `progress` is told of
    each finished area.

    An interrupted call is completed: areas all of whose tiles exist stay as they
    are. Raises InputError when a setting is not allowed, a file is missing, there twice or cannot
    be used, an area is smaller than a tile, or `output` has tiles of other settings.
    """
    settings.check()
    found = _find(raw, settings)
    counts = {"train": 0, "val": 0}
    with sole_writer(output, another="--output DIR", leave=False):
        _claim(output, settings)
        for area, (image, labels) in found.items():
            counts[area.split] += _tile_area(area, image, labels, output, settings)
            progress(1)
    return TileCount(**counts)


def tile_origins(size: int, clip: int, stride: int) -> list[int]:
    """Where tiles begin along a side of `size` pixels: multiples of `stride`, the last one moved
    back to the border, none twice; together they cover every pixel. None when `size` < `clip`."""
    if size < clip:
        return []
    last = size - clip
    return [*range(0, last, stride), last]


def _find(raw: Path, settings: TileSettings) -> dict[Area, tuple[Path, Path]]:
    """The image and the label file of every area. Raises InputError unless each is there once."""
    require(raw.is_dir(), f"{raw} is not a folder; give the one with the unpacked archives")
    places: dict[str, list[Path]] = {}
    for path in sorted(raw.rglob("*.tif")):
        places.setdefault(path.name, []).append(path)

    def only(name: str, folder: str | None) -> Path:
        paths = [p for p in places.get(name, ()) if folder in (None, p.parent.name)]
        wanted = name if folder is None else f"{folder}/{name}"
        require(
            bool(paths),
            f"{raw} has no {wanted}; expected, unpacked: {AREAS[settings.dataset].archives}",
        )
        require(
            len(paths) == 1,
            f"{wanted} is there {len(paths)} times below {raw}: {', '.join(map(str, paths[:2]))}; "
            "remove one",
        )
        return paths[0]

    kind = AREAS[settings.dataset]
    return {
        area: (
            only(kind.image.format(area=area.name, channels=settings.channels), kind.image_folder),
            only(kind.labels.format(area=area.name), None),
        )
        for area in kind.areas
    }


def _claim(output: Path, settings: TileSettings) -> None:
    """Makes `output` the folder of these settings, which are written before any tile.

    Raises InputError when it has tiles of other settings, or unrelated files.
    """
    path = output / SETTINGS
    wanted = _written(settings)
    present = _content_of(path)
    if present is not None:
        # Tiles that a smaller tolerance has let pass are the same under a larger one.
        usable = (replace(settings, color_tolerance=n) for n in range(settings.color_tolerance + 1))
        require(
            present in map(_written, usable),
            f"{output} has tiles of other settings ({_difference(present, settings)}): give "
            "these, or another --output",
        )
    else:
        require(
            holds_nothing(output),
            f"{output} has files but no {SETTINGS} that says how they were made: give another "
            "--output, or remove them",
        )
    with clear_write_errors(output):
        remove_partial(output)
        for kind, split in product(("img_dir", "ann_dir"), ("train", "val")):
            (output / kind / split).mkdir(parents=True, exist_ok=True)
            remove_partial(output / kind / split)
    if present != wanted:
        with replacing(path) as file:
            file.write(wanted)


def _content_of(path: Path) -> bytes | None:
    """None when the file is not there."""
    try:
        return read_bytes(path, SMALL)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read ({why(error)}): give another --output") from None


def _written(settings: TileSettings) -> bytes:
    return (json.dumps(asdict(settings), indent=2) + "\n").encode()


def _difference(present: bytes, settings: TileSettings) -> str:
    """The settings that differ in a folder's file, in words."""
    try:
        theirs = parsed_json(present)
        ours = asdict(settings)
        other = [
            f"{name} {shown(theirs.get(name))}" for name in ours if theirs.get(name) != ours[name]
        ]
    except (ValueError, AttributeError):
        other = []
    return ", ".join(other) or f"{SETTINGS} cannot be read"


def _tile_area(area: Area, image: Path, labels: Path, output: Path, settings: TileSettings) -> int:
    """Writes the tiles of one area, unless all of them are there; how many they are."""
    stored = tiff_size(image)
    require(
        tiff_size(labels) == stored,
        f"{labels} is of another size than the image {image.name} ({stored[1]}x{stored[0]}): "
        "replace the file",
    )
    scale = AREAS[settings.dataset].pixel_cm / settings.pixel_cm
    height, width = (round(side * scale) for side in stored)
    require(
        height * width <= MAX_PIXELS,
        f"{image} would have {width}x{height} pixels at {settings.pixel_cm:g} cm; allowed: up to "
        f"{MAX_PIXELS}: give a larger --pixel-cm",
    )
    stride = settings.stride if area.split == "train" else settings.val_stride or settings.clip
    boxes = list(_boxes(height, width, settings.clip, stride))
    require(
        bool(boxes),
        f"{image} has {width}x{height} pixels at {settings.pixel_cm:g} cm, less than a tile of "
        f"{settings.clip}x{settings.clip}: give a smaller --clip",
    )
    names = ["_".join(map(str, (area.tile_name, *box))) + ".png" for box in boxes]
    folders = [output / kind / area.split for kind in ("img_dir", "ann_dir")]
    if all((folder / name).exists() for folder in folders for name in names):
        return len(names)
    picture, ids = read_tiff(image), _read_labels(labels, settings)
    if scale != 1:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
        ids = ids.resize((width, height), Image.Resampling.NEAREST)
    for name, box in zip(names, boxes, strict=True):
        for folder, whole in zip(folders, (picture, ids), strict=True):
            with replacing(folder / name) as file:
                whole.crop(box).save(file, format="png")
    return len(names)


def _read_labels(path: Path, settings: TileSettings) -> Image.Image:
    """Raw ids of a label TIFF, 8-bit gray."""
    colors = np.asarray(read_tiff(path))
    return Image.fromarray(labels_of_colors(colors, str(path), tolerance=settings.color_tolerance))


def _boxes(height: int, width: int, clip: int, stride: int) -> Iterator[tuple[int, int, int, int]]:
    """(left, top, right, bottom) of every tile, row by row."""
    for top, left in product(tile_origins(height, clip, stride), tile_origins(width, clip, stride)):
        yield left, top, left + clip, top + clip
