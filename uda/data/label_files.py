"""Label files, read or refused by name."""

from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.files import COLOR_MODES, DEEP, decode, is_deep, opened, tiles
from uda.labels.spaces import CHANNELS, Coding, LabelSpace
from uda.utilities.errors import InputError

_SHAPE_TOLERANCE = 0.05  # between the aspect ratios of a translated image and its labels
_LABEL_MODES = ("L", "P")  # 8-bit gray and palette
_DEEP_MODES = ("I;16", "I")  # 16-bit gray, which some tools write small values in
_NO_PLACE = 255  # more colors than that no label space has
_LOWER = ";16L"  # DEEP's bytes in the other order: what is read then is the lower 8 bits

Colors = tuple[tuple[int, int, int], ...]
_BY_VALUE = Coding()


def read_raw_labels(
    path: Path,
    size: tuple[int, int] | None = None,
    *,
    translated: bool = False,
    coding: Coding = _BY_VALUE,
) -> Image.Image:
    """Raw label ids, an 8-bit picture, of an image of `size` (height, width), if that matters; a
    palette's index is the id. With colors in the `coding` of the label space, the id is a color's
    place among them, and a palette stands for its colors; with a channel, its value is the id.

    Raises InputError when the file is missing or corrupt, has colors where it should not or
    others than it should, or is of another size; the labels of a `translated` image need only have
    about its shape.
    """
    labels = _channel(path, coding.channel) if coding.channel else decode(path)
    if coding.colors:
        labels = _places_of(labels, coding.colors, path)
    elif labels.mode in _DEEP_MODES:
        labels = _eight_bits(labels, path)
    if labels.mode not in _LABEL_MODES:
        raise InputError(
            f"{path}: mode {labels.mode} cannot hold label ids; allowed: 8-bit gray or palette "
            "PNG; a data set described by a TOML file may have colors, see docs/own_data.md"
        )
    if size is not None and not sizes_fit(
        size, (labels.height, labels.width), translated=translated
    ):
        raise InputError(
            f"{path}: labels are {labels.width}x{labels.height}, the image is {size[1]}x{size[0]}; "
            "replace the file or, for training, leave the sample out with --set data.exclude=NAME"
        )
    return labels


def _channel(path: Path, channel: str) -> Image.Image:
    """8-bit gray: the values of one channel of an RGB picture with 8 or 16 bits per channel;
    InputError for a value above 255."""
    place = CHANNELS.index(channel)
    with opened(path) as image:
        if image.mode not in COLOR_MODES:
            raise InputError(f"{path}: mode {image.mode} has no channel {channel}; allowed: RGB")
        deep = is_deep(image)
        values = np.asarray(image)[..., place]
    if not deep:
        return Image.fromarray(values)
    with opened(path) as image:
        codec, extents, offset, stored = tiles(image)[0]
        tiles(image)[0] = (codec, extents, offset, stored.replace(DEEP, _LOWER))
        lower = np.asarray(image)[..., place]
    if values.any():
        largest = int((values.astype(int) << 8 | lower).max())
        raise InputError(f"{path}: the value {largest} is not a label id; allowed: 0 to 255")
    return Image.fromarray(lower)


def color_codes(picture: Image.Image) -> npt.NDArray[np.uint32]:
    """(H, W) of a picture of any mode: 65536 R + 256 G + B, whatever its transparency."""
    # By way of RGBA, as Pillow wants it of palettes with transparent colors.
    pixels = np.asarray(picture.convert("RGBA")).astype(np.uint32)
    codes = (pixels[..., 0] << 16) | (pixels[..., 1] << 8) | pixels[..., 2]
    return codes.astype(np.uint32, copy=False)  # which they are, but their annotation is wider


def _places_of(labels: Image.Image, colors: Colors, path: Path) -> Image.Image:
    """8-bit gray: the place of each pixel's color among `colors`; InputError for other colors."""
    codes = color_codes(labels)
    places = _places(colors)[codes]
    strange = codes[places == _NO_PLACE]
    if strange.size:
        found = np.unique(strange)
        first = [int(found[0]) >> shift & 255 for shift in (16, 8, 0)]
        raise InputError(
            f"{path}: {strange.size} pixels have {found.size} colors that are of no class, the "
            f"first is {first}; give them to a class or to ignore_colors, or replace the file "
            "(JPEG changes colors)"
        )
    return Image.fromarray(places)


@lru_cache(maxsize=2)
def _places(colors: Colors) -> npt.NDArray[np.uint8]:
    """The place of every 24-bit color among `colors`: 16 MiB, many times faster than searching."""
    table = np.full(2**24, _NO_PLACE, np.uint8)
    for place, (red, green, blue) in enumerate(colors):
        table[red << 16 | green << 8 | blue] = place
    return table


def _eight_bits(labels: Image.Image, path: Path) -> Image.Image:
    """8-bit gray of 16-bit gray; InputError when a value does not fit."""
    values = np.asarray(labels)
    if values.min() < 0 or values.max() > 255:
        raise InputError(
            f"{path}: the value {int(values.max())} is not a label id; allowed: 0 to 255"
        )
    return Image.fromarray(values.astype(np.uint8))


def sizes_fit(image: tuple[int, int], labels: tuple[int, int], *, translated: bool) -> bool:
    """Whether labels of one size (height, width) belong to an image of another.

    They have to be equal. A translated image may be scaled: GTA5's 1914x1052 became 1280x720, say.
    """
    if not translated:
        return image == labels
    return abs(image[0] * labels[1] / (image[1] * labels[0]) - 1) < _SHAPE_TOLERANCE


def read_train_ids(path: Path, size: tuple[int, int], space: LabelSpace) -> npt.NDArray[np.uint8]:
    """Train ids (H, W) uint8 of a raw label file of `size` (H, W); see `read_raw_labels`."""
    raw = read_raw_labels(path, size, coding=space.coding)
    return space.to_train_ids(np.asarray(raw), str(path))
