"""Image and label files, read or refused by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from uda.labels.spaces import CHANNELS, Coding, LabelSpace
from uda.utilities.errors import InputError, shortened

# Pillow reads more formats, some of them, such as PostScript, with other programs.
_FORMATS = ("PNG", "JPEG")
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277  # tags of a TIFF
_TIFF = ("TIFF",)  # only read to prepare a data set; none is trained on
# More than any data set has: Cityscapes has 2**21, the tiles of Potsdam 36 million. A file of a few
# bytes can claim any size, and decoding it would take all memory; so headers are read first.
# Pillow's own limit, a warning, is a little higher.
MAX_PIXELS = 2**26

_SHAPE_TOLERANCE = 0.05  # between the aspect ratios of a translated image and its labels
_LABEL_MODES = ("L", "P")  # 8-bit gray and palette
_DEEP_MODES = ("I;16", "I")  # 16-bit gray, which some tools write small values in
_COLOR_MODES = ("RGB", "RGBA")
_NO_PLACE = 255  # more colors than that no label space has

_DEEP = ";16B"  # in Pillow's name of what a PNG with 16 bits per channel stores
_LOWER = ";16L"  # the same bytes in the other order: what is read then is the lower 8 bits

Colors = tuple[tuple[int, int, int], ...]
_BY_VALUE = Coding()


class Header(NamedTuple):
    """What the header of an image file says."""

    size: tuple[int, int]  # (height, width)
    mode: str  # as Pillow calls it: RGB, L, P, ...
    format: str  # PNG, JPEG, ...


def read_image(path: Path, *, upright: bool = False) -> Image.Image:
    """The RGB picture in a file, without its transparency if it has any; as stored or, if it shall
    be `upright`, turned as the camera has noted (EXIF orientation).

    Raises InputError, naming the file, when it cannot be decoded or has no colors: gray and
    palette pictures are label files more often than photographs.
    """
    image = decode(path, upright=upright)
    if image.mode not in _COLOR_MODES:
        raise InputError(f"{path}: mode {image.mode} is not a color image; allowed: RGB, RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


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


def _tiles(image: Image.Image) -> list[tuple[Any, ...]]:
    """Where Pillow finds the pixels in a file that was opened: decoder, box, offset, raw mode."""
    return getattr(image, "tile", None) or [("", None, 0, "")]


def _is_deep(image: Image.Image) -> bool:
    """Whether a picture that was opened, but not loaded, has colors of 16 bits per channel, which
    Pillow would cut to the upper 8."""
    stored = _tiles(image)[0][3]
    return image.mode in _COLOR_MODES and isinstance(stored, str) and stored.endswith(_DEEP)


def _channel(path: Path, channel: str) -> Image.Image:
    """8-bit gray: the values of one channel of an RGB picture with 8 or 16 bits per channel;
    InputError for a value above 255."""
    place = CHANNELS.index(channel)
    with _opened(path) as image:
        if image.mode not in _COLOR_MODES:
            raise InputError(f"{path}: mode {image.mode} has no channel {channel}; allowed: RGB")
        deep = _is_deep(image)
        values = np.asarray(image)[..., place]
    if not deep:
        return Image.fromarray(values)
    with _opened(path) as image:
        codec, extents, offset, stored = _tiles(image)[0]
        _tiles(image)[0] = (codec, extents, offset, stored.replace(_DEEP, _LOWER))
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


def read_tiff(path: Path) -> Image.Image:
    """The RGB picture in a TIFF, for preparing a data set; InputError, naming the file, when it
    cannot be decoded or has other channels."""
    image = decode(path, _TIFF)
    tags = image.tag_v2  # type: ignore[attr-defined]  # a TIFF has them
    bits, channels = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_SAMPLES_PER_PIXEL, 1)
    # Of 16 bits Pillow would take the upper half, and of four channels the first three.
    if image.mode != "RGB" or set(bits) != {8} or channels != 3:
        raise InputError(
            f"{path} has {channels} channels of {max(bits)} bits, mode {image.mode}; allowed: "
            "8-bit RGB without transparency, as the published files are: replace the file"
        )
    return image


def tiff_size(path: Path) -> tuple[int, int]:
    """(height, width) of a TIFF, without decoding it; see `read_header`."""
    with _opened(path, _TIFF) as image:
        return image.height, image.width


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as the file's header says, without decoding it; see `read_header`."""
    return read_header(path).size


def read_header(path: Path) -> Header:
    """Size and kind of a picture, without decoding it.

    Raises InputError, naming the file, when it is none or has more than MAX_PIXELS.
    """
    with _opened(path) as image:
        return Header((image.height, image.width), image.mode, image.format or "unknown")


def decode(
    path: Path, formats: tuple[str, ...] = _FORMATS, *, upright: bool = False
) -> Image.Image:
    """The picture in a file, of any mode; `upright` as in `read_image`.

    Raises InputError, naming the file, when it cannot be decoded.
    """
    with _opened(path, formats) as image:
        if _is_deep(image):
            raise InputError(
                f"{path} has 16 bits per channel, of which the upper 8 would be read: convert "
                "photographs to 8 bits; for labels whose class is in one channel, write "
                'label_channel = "red" into the TOML file of the data set'
            )
        image.load()
        return ImageOps.exif_transpose(image) if upright else image


@contextmanager
def _opened(path: Path, formats: tuple[str, ...] = _FORMATS) -> Iterator[Image.Image]:
    """The picture in a file, no larger than can be decoded; InputError for all that is wrong."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise ValueError("it is not a file")
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width}x{image.height} pixels")
            yield image
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, str(error).split(" exceeds")[0]) from None
    except Exception as error:  # every decoder of Pillow's has its own for what it stumbles over
        raise _undecodable(path, error) from error


def _too_large(path: Path, reason: str) -> InputError:
    side = int(MAX_PIXELS**0.5)
    return InputError(
        f"{path} cannot be decoded ({reason} by its header; allowed: as many as {side}x{side} "
        "has): replace the file"
    )


def _undecodable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return InputError(f"{path} cannot be read: permission denied")
    reason = shortened(" ".join(str(error).split()) or type(error).__name__, 200)
    return InputError(f"{path} cannot be decoded ({reason}): replace the file")
