"""Label files, read or refused by name."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.deep_images import DEEP_GRAY, bits_of, deep_values, stored_as
from uda.data.files import COLOR_MODES, Header, decode, loaded, opened, read_header
from uda.data.polygons import SUFFIX, draw_labels, read_outlines
from uda.labels.spaces import CHANNELS, Coding, LabelSpace
from uda.utilities.errors import InputError, require

_SHAPE_TOLERANCE = 0.05  # between the aspect ratios of a translated image and its labels
_LABEL_MODES = ("L", "P")  # 8-bit gray and palette
_LARGEST = 65535  # value of 16 bits
_NO_PLACE = 255  # more colors than that no label space has
# Gray of 1, 2 or 4 bits, which Pillow scales to 0..255: by how much.
_SCALED = {"1": 255, "1;I": 255, "L;2": 85, "L;4": 17}

Colors = tuple[tuple[int, int, int], ...]
Values = tuple[tuple[int, int], ...]
_BY_VALUE = Coding()


def read_raw_labels(
    path: Path,
    size: tuple[int, int] | None = None,
    *,
    translated: bool = False,
    coding: Coding = _BY_VALUE,
) -> Image.Image:
    """Raw label ids, an 8-bit picture, of an image of `size` (height, width), if that matters; a
    palette's index is the id. The `coding` of the label space may say otherwise: with colors, the
    id is a color's place among them, and a palette stands for its colors; with a channel, its value
    is the id; with values, these stand for ids; with names, the polygons of these names are drawn.

    Raises InputError when the file is missing or corrupt, has colors where it should not or
    others than it should, or is of another size; the labels of a `translated` image need only have
    about its shape.
    """
    labels = _raw_labels(path, coding)
    if size is not None:
        require_fit(labels, path, size, translated=translated)
    return labels


def _raw_labels(path: Path, coding: Coding) -> Image.Image:
    if coding.names:
        return draw_labels(path, dict(coding.names))
    if coding.channel or coding.values:
        return _ids_of(_stored_values(path, coding), coding.values, path)
    if coding.colors:
        return _places_of(decode(path), coding.colors, path)
    return _plain(path, coding)


def require_fit(
    labels: Image.Image, path: Path, size: tuple[int, int], *, translated: bool
) -> None:
    """Raises InputError unless the labels of a file belong to an image of `size` (height, width);
    those of a `translated` one need only have about its shape."""
    if not sizes_fit(size, (labels.height, labels.width), translated=translated):
        raise InputError(
            f"{path}: labels are {labels.width}x{labels.height}, the image is {size[1]}x{size[0]}; "
            "replace the file or, for training, leave the sample out with --set data.exclude=NAME"
        )


def _plain(path: Path, coding: Coding) -> Image.Image:
    """8-bit gray or palette of a file whose pixels are ids; InputError where they cannot be."""
    with opened(path) as image:
        if image.mode in DEEP_GRAY:
            return _ids_of(deep_values(image), (), path)
        scale = gray_scale(image) if coding.stored else 1
        labels = loaded(image, path)
    if labels.mode == "LA":  # the transparency is that of the whole picture, or nothing
        labels = labels.getchannel("L")
    if labels.mode == "1":
        labels = labels.convert("L")
    if labels.mode not in _LABEL_MODES:
        raise InputError(
            f"{path}: mode {labels.mode} cannot hold label ids; allowed: gray or palette PNG, "
            "TIFF, BMP; a data set described by a TOML file may have colors, see docs/own_data.md"
        )
    return Image.fromarray(np.asarray(labels) // scale) if scale > 1 else labels


def gray_scale(image: Image.Image) -> int:
    """By how much Pillow multiplies the stored values of a picture that was opened: above 1 for
    gray of fewer than 8 bits."""
    return _SCALED.get(stored_as(image), 1) if image.mode in ("1", "L") else 1


def _stored_values(path: Path, coding: Coding) -> npt.NDArray[Any]:
    """(H, W) of values of 8 or 16 bits: of one channel of an RGB picture or, without, of gray."""
    channel = coding.channel
    with opened(path) as image:
        deep = bits_of(image) > 8
        if coding.deep and not deep:
            raise InputError(
                f"{path}: mode {image.mode} with 8 bits; the data set's own label files have 16 "
                f"bits per channel, and the class in {channel}: a copy of 8 bits has been mapped "
                "already, and would be mapped again; use the original files"
            )
        if channel and image.mode not in COLOR_MODES:
            raise InputError(f"{path}: mode {image.mode} has no channel {channel}; allowed: RGB")
        require(
            bool(channel) or image.mode in DEEP_GRAY or image.mode in _LABEL_MODES,
            f"{path}: mode {image.mode} has more than one channel; say which has the class: "
            'label_channel = "red" in the TOML file of the data set',
        )
        values = deep_values(image) if deep else np.asarray(image)
    return values[..., CHANNELS.index(channel)] if channel else values


def _ids_of(values: npt.NDArray[Any], listed: Values, path: Path) -> Image.Image:
    """8-bit gray: the raw ids of (H, W) values, which are themselves or as `listed`; InputError for
    values that cannot be."""
    low, high = values.min(), values.max()
    most = _LARGEST if listed else 255
    if low < 0 or high > most or (values.dtype.kind == "f" and (values % 1).any()):
        odd = low if low < 0 else high
        raise InputError(
            f"{path}: the value {odd} is not a label id; allowed: 0 to {most}"
            + ("" if listed else "; a data set of your own may list values up to 65535")
        )
    if not listed:
        return Image.fromarray(values.astype(np.uint8))
    ids = _table_of(listed)[values.astype(np.uint16)]
    if (ids < 0).any():
        strange = np.unique(values[ids < 0]).tolist()
        raise InputError(
            f"{path}: the label values {', '.join(map(str, strange[:5]))} ({len(strange)} in all) "
            "are of no class; give them to a class, to ignore or to the mapping file"
        )
    return Image.fromarray(ids.astype(np.uint8))


@lru_cache(maxsize=4)
def _table_of(listed: Values) -> npt.NDArray[np.int16]:
    table = np.full(_LARGEST + 1, -1, np.int16)
    for value, raw_id in listed:
        table[value] = raw_id
    return table


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


def label_header(path: Path) -> Header:
    """Size and kind of a file of labels or of an image, without decoding it; InputError, naming the
    file, when it is neither."""
    if path.suffix == SUFFIX:
        return Header(read_outlines(path).size, "L", "polygons")
    return read_header(path)


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
