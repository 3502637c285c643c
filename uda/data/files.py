"""Image and label files, read or refused by name."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.labels import LabelSpace
from uda.errors import InputError

_SHAPE_TOLERANCE = 0.05  # between the aspect ratios of a translated image and its labels


def read_image(path: Path) -> Image.Image:
    """The RGB picture in a file, without its transparency if it has any.

    Raises InputError, naming the file, when it cannot be decoded or holds no colors: gray and
    palette pictures are label files more often than photographs.
    """
    image = _decode(path)
    if image.mode not in ("RGB", "RGBA"):
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
    if labels.mode not in ("L", "P"):
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


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) as the file's header says, without decoding it."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _undecodable(path, error) from error


def _decode(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise _undecodable(path, error) from error


def _undecodable(path: Path, error: Exception) -> InputError:
    if isinstance(error, FileNotFoundError):
        return InputError(f"{path} does not exist")
    if isinstance(error, PermissionError):
        return InputError(f"{path} cannot be read: permission denied")
    reason = " ".join(str(error).split())
    return InputError(f"{path} cannot be decoded ({reason}): replace the file")
