"""Image and label files, read or refused by name."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.labels import LabelSpace
from uda.errors import InputError, shortened

# Pillow knows more, and draws some of them, such as PostScript, with other programs.
_FORMATS = ("PNG", "JPEG")
_TIFF = ("TIFF",)  # of what is prepared, once; a data set that is trained on holds none
# More than any data set has: Cityscapes has 2**21, the tiles of Potsdam 36 million. A file of a few
# bytes can claim any size, and decoding it would take all memory; so headers are looked at first.
# Pillow's own limit, a warning, is a little higher.
MAX_PIXELS = 2**26

_SHAPE_TOLERANCE = 0.05  # between the aspect ratios of a translated image and its labels
_LABEL_MODES = ("L", "P")  # 8-bit gray and palette
_COLOR_MODES = ("RGB", "RGBA")


class Header(NamedTuple):
    """What an image file says of itself before it is decoded."""

    size: tuple[int, int]  # (height, width)
    mode: str  # as Pillow calls it: RGB, L, P, ...
    format: str  # PNG, JPEG, ...


def read_image(path: Path) -> Image.Image:
    """The RGB picture in a file, without its transparency if it has any.

    Raises InputError, naming the file, when it cannot be decoded or holds no colors: gray and
    palette pictures are label files more often than photographs.
    """
    image = _decode(path)
    if image.mode not in _COLOR_MODES:
        raise InputError(f"{path}: mode {image.mode} is no color image; allowed: RGB, RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def read_raw_labels(
    path: Path, size: tuple[int, int] | None = None, *, translated: bool = False
) -> Image.Image:
    """Raw label ids, an 8-bit picture, of an image of `size` (height, width), if that matters; a
    palette's index is the id.

    Raises InputError when the file is missing or corrupt, holds colors, or is of another size;
    the labels of a `translated` image need only have about its shape.
    """
    labels = _decode(path)
    if labels.mode not in _LABEL_MODES:
        raise InputError(
            f"{path}: mode {labels.mode} cannot hold label ids; allowed: 8-bit gray or palette PNG"
        )
    if size is not None and not sizes_fit(
        size, (labels.height, labels.width), translated=translated
    ):
        raise InputError(
            f"{path}: labels are {labels.width}x{labels.height}, the image is {size[1]}x{size[0]}; "
            "replace the file or, for training, leave the sample out with --set data.exclude=NAME"
        )
    return labels


def sizes_fit(image: tuple[int, int], labels: tuple[int, int], *, translated: bool) -> bool:
    """Whether labels of one size (height, width) belong to an image of another.

    They have to be equal. A translated image may be scaled: GTA5's 1914x1052 became 1280x720, say.
    """
    if not translated:
        return image == labels
    return abs(image[0] * labels[1] / (image[1] * labels[0]) - 1) < _SHAPE_TOLERANCE


def read_train_ids(path: Path, size: tuple[int, int], space: LabelSpace) -> npt.NDArray[np.uint8]:
    """Train ids (H, W) uint8 of a raw label file of `size` (H, W); see `read_raw_labels`."""
    return space.to_train_ids(np.asarray(read_raw_labels(path, size)), str(path))


def read_tiff(path: Path) -> Image.Image:
    """The RGB picture in a TIFF, for preparing a data set; InputError, naming the file, when it
    cannot be decoded or holds other channels."""
    image = _decode(path, _TIFF)
    if image.mode != "RGB":
        raise InputError(f"{path}: mode {image.mode} is not allowed; allowed: 8-bit RGB")
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


def _decode(path: Path, formats: tuple[str, ...] = _FORMATS) -> Image.Image:
    with _opened(path, formats) as image:
        image.load()
        return image


@contextmanager
def _opened(path: Path, formats: tuple[str, ...] = _FORMATS) -> Iterator[Image.Image]:
    """The picture in a file, no larger than can be decoded; InputError for all that is wrong."""
    try:
        if path.exists() and not path.is_file():  # reading a pipe would wait for ever
            raise ValueError("it is no file")
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
