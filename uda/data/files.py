"""Image files and the headers of all pictures, read or refused by name.

An image is an 8-bit RGB picture when it is used, whatever its file holds. Gray, palette and CMYK
pictures are converted; of more than 8 bits per channel, `uda/data/deep_images.py` says how.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from uda.data.deep_images import DEEP_GRAY, Range, bits_of, deep_values, shown_levels
from uda.data.first_rows import keep_first_rows
from uda.utilities.errors import InputError, require
from uda.utilities.reading import opened as open_file
from uda.utilities.reading import why

# Pillow reads more formats, some of them, such as PostScript, with other programs.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_BITS_PER_SAMPLE, _SAMPLES_PER_PIXEL = 258, 277  # tags of a TIFF
_TIFF = ("TIFF",)
_ORIENTATION = 274  # tag of EXIF
# A panorama of 16384x8192; Cityscapes has 2**21, the tiles of Potsdam 36 million. A file of a few
# bytes can claim any size, and decoding it would take all memory; so headers are read first.
MAX_PIXELS = 2**27
if Image.MAX_IMAGE_PIXELS is not None:  # Pillow's own limit is lower; `opened` has one in any case
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, MAX_PIXELS)

COLOR_MODES = ("RGB", "RGBA")
_KINDS = {"1": "black and white", "L": "gray", "LA": "gray", "P": "palette", "PA": "palette",
          "RGB": "", "RGBA": ""} | dict.fromkeys(DEEP_GRAY, "gray")  # fmt: skip


class Header(NamedTuple):
    """What the header of an image file says."""

    size: tuple[int, int]  # (height, width), as stored
    mode: str  # as Pillow calls it: RGB, L, P, ...
    format: str  # PNG, JPEG, ...
    bits: int = 8  # per channel
    orientation: int = 1  # EXIF: how viewers turn it; 1: not at all

    @property
    def kind(self) -> str:
        """What has to be converted to make 8-bit RGB of it, in words; "" if nothing."""
        depth = f"{self.bits} bits per channel" if self.bits > 8 else ""
        return ", ".join(filter(None, (_KINDS.get(self.mode, self.mode), depth)))

    def size_when(self, *, upright: bool) -> tuple[int, int]:
        """(height, width) as stored or as viewers show it."""
        return self.size[::-1] if upright and self.orientation > 4 else self.size


class StoredImage:
    """An image file that is open: its size is known, its pixels are decoded when asked for."""

    def __init__(
        self, image: Image.Image, path: Path, *, upright: bool, image_range: Range | None
    ) -> None:
        self._image, self._path = image, path
        self._upright, self._range = upright, image_range
        turned = upright and _orientation(image) > 4
        size = (image.height, image.width)
        self.size = size[::-1] if turned else size  # (height, width) of what `picture` gives
        self.held = self.size

    def picture(self, rows: int | None = None) -> Image.Image:
        """8-bit RGB: the picture, or at least its first `rows` rows, and no more need be decoded.
        To be called once. Raises InputError as `read_image`."""
        with _clear_errors(self._path):
            image = self._image
            if bits_of(image) > 8:
                require(
                    self._range is not None,
                    f"{self._path} has more than 8 bits per channel, as none of those have that "
                    "were looked at: say which values become black and white, image_range = "
                    "[0, 4095] in the TOML file of the data set, or convert it to 8 bits",
                )
                assert self._range is not None
                picture = Image.fromarray(shown_levels(deep_values(image), self._range))
                picture.getexif()[_ORIENTATION] = _orientation(image)
            else:
                if rows is not None and not self._upright:
                    keep_first_rows(image, rows)
                image.load()
                picture = image
            return _rgb(ImageOps.exif_transpose(picture) if self._upright else picture)


@contextmanager
def stored_image(
    path: Path, *, upright: bool = False, image_range: Range | None = None
) -> Iterator[StoredImage]:
    """An image file, open within; see `read_image`, also for what is raised."""
    with ExitStack() as stack:
        with _clear_errors(path):
            image = stack.enter_context(_open(path, FORMATS))
            stored = StoredImage(image, path, upright=upright, image_range=image_range)
        yield stored


def read_image(
    path: Path, *, upright: bool = False, image_range: Range | None = None
) -> Image.Image:
    """The 8-bit RGB picture in a file, without its transparency if it has any; as stored or, if it
    shall be `upright`, turned as the camera has noted (EXIF orientation).

    image_range: the values of more than 8 bits that become 0 and 255, one for a whole data set.
    Raises InputError, naming the file, when it cannot be decoded, or its values need such a range.
    """
    with stored_image(path, upright=upright, image_range=image_range) as stored:
        return stored.picture()


def _rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of a picture of any mode; transparent pixels keep their color."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA")  # as Pillow wants it of palettes with transparent colors
    if image.mode == "LA":
        image = image.convert("L")
    return image if image.mode == "RGB" else image.convert("RGB")


def read_tiff(path: Path) -> Image.Image:
    """The RGB picture in a TIFF, for preparing a data set; InputError, naming the file, when it
    cannot be decoded or has other channels."""
    with opened(path, _TIFF) as image:
        tags = image.tag_v2  # type: ignore[attr-defined]  # a TIFF has them
        bits, channels = tags.get(_BITS_PER_SAMPLE, (1,)), tags.get(_SAMPLES_PER_PIXEL, 1)
        # Of 16 bits Pillow would take the upper half, and of four channels the first three.
        require(
            image.mode == "RGB" and set(bits) == {8} and channels == 3,
            f"{path} has {channels} channels of {max(bits)} bits, mode {image.mode}; allowed: "
            "8-bit RGB without transparency, as the published files are: replace the file",
        )
        image.load()
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
        return Header(
            (image.height, image.width), image.mode, image.format or "unknown", bits_of(image),
            _orientation(image),
        )  # fmt: skip


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 to 8, of a picture that was opened; of a TIFF 1, as Pillow turns it itself."""
    if "exif" not in image.info:  # asking a PNG would decode it
        return 1
    found = image.getexif().get(_ORIENTATION, 1)
    return found if found in range(1, 9) else 1


def decode(path: Path, formats: tuple[str, ...] = FORMATS) -> Image.Image:
    """The picture in a file, of any mode, as stored.

    Raises InputError, naming the file, when it cannot be decoded or has colors of 16 bits.
    """
    with opened(path, formats) as image:
        return loaded(image, path)


def loaded(image: Image.Image, path: Path) -> Image.Image:
    """A picture that was opened, decoded; see `decode`."""
    if image.mode in COLOR_MODES and bits_of(image) > 8:
        raise InputError(
            f"{path} has 16 bits per channel, of which the upper 8 would be read; for labels whose "
            'class is in one channel, write label_channel = "red" into the TOML file of the data '
            "set"
        )
    image.load()
    return image


@contextmanager
def opened(path: Path, formats: tuple[str, ...] = FORMATS) -> Iterator[Image.Image]:
    """The picture in a file, no larger than can be decoded; InputError for all that is wrong."""
    with _clear_errors(path), _open(path, formats) as image:
        yield image


@contextmanager
def _open(path: Path, formats: tuple[str, ...]) -> Iterator[Image.Image]:
    with open_file(path) as file, Image.open(file, formats=formats) as image:
        image.filename = str(path)  # as Pillow has it of files that it opens itself
        if image.width * image.height > MAX_PIXELS:
            raise _too_large(path, f"{image.width}x{image.height} pixels")
        yield image


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Makes an InputError that names the file of whatever is raised within."""
    try:
        yield
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, str(error).split(" exceeds")[0]) from None
    except MemoryError:
        raise no_memory_to_read(path) from None
    except Exception as error:  # every decoder of Pillow's has its own for what it stumbles over
        raise _undecodable(path, error) from error


def no_memory_to_read(path: Path) -> InputError:
    """What to say when there is no room for what is in a file, which is not at fault."""
    return InputError(
        f"there is no memory left to read {path}: use fewer loader processes, --workers 0 or --set "
        "data.workers=0, or smaller images"
    )


def _too_large(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} cannot be decoded ({reason} by its header; allowed: as many as 16384x8192 "
        "has): replace the file"
    )


def _undecodable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return InputError(f"{path} cannot be read: permission denied")
    reason = why(error) or type(error).__name__
    return InputError(f"{path} cannot be decoded ({reason}): replace the file")


@lru_cache(maxsize=16)  # the splits of a data set are listed several times
def range_of(paths: tuple[Path, ...]) -> Range | None:
    """The values of more than 8 bits per channel that become 0 and 255 in all the pictures `paths`,
    by those among up to 64 of them that have so many; None if none has.

    The low end is 0 and the high one the largest of that many bits (0..4095 for 12), unless the
    values begin above a quarter of it and use less than half of it, as a thermal camera's do: then
    it is the lowest and the highest value.
    """
    return joint_range(_values(looked_at(paths)))


def looked_at(paths: Sequence[Path]) -> list[Path]:
    """Those pictures whose values stand for all."""
    places = np.linspace(0, len(paths) - 1, min(len(paths), 64)).round().astype(int)
    return [paths[place] for place in places]


def _values(paths: Iterable[Path]) -> Iterator[Range | None]:
    for path in paths:
        with suppress(InputError):  # it is named when it is read
            yield values_in(path)


def values_in(path: Path) -> Range | None:
    """The lowest and the highest value of a picture with more than 8 bits per channel; None of one
    with 8. InputError, naming the file, when it cannot be decoded."""
    with opened(path) as image:
        if bits_of(image) <= 8:
            return None
        values = deep_values(image)
        return float(values.min()), float(values.max())


def joint_range(values: Iterable[Range | None]) -> Range | None:
    """What becomes 0 and 255 in pictures of these `values_in`; see `range_of`."""
    found = [one for one in values if one is not None]
    if not found:
        return None
    low, high = min(low for low, _ in found), max(high for _, high in found)
    whole = 1.0 if high <= 1 else float(2 ** max(8, int(high).bit_length()) - 1)
    if low < 0 or (low > whole / 4 and high - low < whole / 2):
        return low, max(high, low + whole / 16)
    return 0.0, whole
