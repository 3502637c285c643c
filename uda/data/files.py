"""Image files and the headers of all pictures, read or refused by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageOps

from uda.utilities.errors import InputError, shortened

# Pillow reads more formats, some of them, such as PostScript, with other programs.
_FORMATS = ("PNG", "JPEG")
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277  # tags of a TIFF
_TIFF = ("TIFF",)  # only read to prepare a data set; none is trained on
# More than any data set has: Cityscapes has 2**21, the tiles of Potsdam 36 million. A file of a few
# bytes can claim any size, and decoding it would take all memory; so headers are read first.
# Pillow's own limit, a warning, is a little higher.
MAX_PIXELS = 2**26

COLOR_MODES = ("RGB", "RGBA")
DEEP = ";16B"  # in Pillow's name of what a PNG with 16 bits per channel stores


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
    if image.mode not in COLOR_MODES:
        raise InputError(f"{path}: mode {image.mode} is not a color image; allowed: RGB, RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def tiles(image: Image.Image) -> list[tuple[Any, ...]]:
    """Where Pillow finds the pixels in a file that was opened: decoder, box, offset, raw mode."""
    return getattr(image, "tile", None) or [("", None, 0, "")]


def is_deep(image: Image.Image) -> bool:
    """Whether a picture that was opened, but not loaded, has colors of 16 bits per channel, which
    Pillow would cut to the upper 8."""
    stored = tiles(image)[0][3]
    return image.mode in COLOR_MODES and isinstance(stored, str) and stored.endswith(DEEP)


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
    with opened(path, _TIFF) as image:
        return image.height, image.width


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as the file's header says, without decoding it; see `read_header`."""
    return read_header(path).size


def read_header(path: Path) -> Header:
    """Size and kind of a picture, without decoding it.

    Raises InputError, naming the file, when it is none or has more than MAX_PIXELS.
    """
    with opened(path) as image:
        return Header((image.height, image.width), image.mode, image.format or "unknown")


def decode(
    path: Path, formats: tuple[str, ...] = _FORMATS, *, upright: bool = False
) -> Image.Image:
    """The picture in a file, of any mode; `upright` as in `read_image`.

    Raises InputError, naming the file, when it cannot be decoded.
    """
    with opened(path, formats) as image:
        if is_deep(image):
            raise InputError(
                f"{path} has 16 bits per channel, of which the upper 8 would be read: convert "
                "photographs to 8 bits; for labels whose class is in one channel, write "
                'label_channel = "red" into the TOML file of the data set'
            )
        image.load()
        return ImageOps.exif_transpose(image) if upright else image


@contextmanager
def opened(path: Path, formats: tuple[str, ...] = _FORMATS) -> Iterator[Image.Image]:
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
