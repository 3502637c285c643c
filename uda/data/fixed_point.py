"""Bilinear resizing of 8-bit images without antialiasing, with the bytes of OpenCV.

Each pixel is made of the two nearest on each axis, however many lie between. The weights are whole
2048ths; rows are added up with 7, columns with 2 more bits than a byte has.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

_ONE = 2048


class _Neighbors(NamedTuple):
    """The two old places next to each new one, and their weights: all (new,) int."""

    before: npt.NDArray[np.int64]
    after: npt.NDArray[np.int64]
    weight_before: npt.NDArray[np.int32]
    weight_after: npt.NDArray[np.int32]


_ALL = slice(None)


def resize_fixed_point(
    pixels: npt.NDArray[np.uint8],
    size: tuple[int, int],
    part: tuple[slice, slice] = (_ALL, _ALL),
    height: int | None = None,
) -> npt.NDArray[np.uint8]:
    """(h, w, 3) resized to (*size, 3), of which only `part`, rows and columns, is made. `height`:
    that of the image, where `pixels` are no more than the first rows of it that are needed."""
    height = pixels.shape[0] if height is None else height
    above, below, *weights = (found[part[0]] for found in _neighbors(height, size[0]))
    first = above[0]  # the rows before it are not needed
    pixels, above, below = pixels[first : below[-1] + 1], above - first, below - first
    columns = (found[part[1]] for found in _neighbors(pixels.shape[1], size[1]))
    left, right, weight_left, weight_right = columns
    # In a column beyond the outermost centers the one pixel has the whole weight; rows are weighted
    # as if there were two, whose products are rounded.
    outside = left == right
    weight_left[outside], weight_right[outside] = _ONE, 0
    # The colors of a row stand side by side: numpy is faster on few long rows.
    flat = (len(pixels), 3 * len(left))
    wide = pixels.take(left, axis=1).reshape(flat) * weight_left.repeat(3)
    wide += pixels.take(right, axis=1).reshape(flat) * weight_right.repeat(3)
    wide >>= 4
    total, lower = wide.take(above, axis=0), wide.take(below, axis=0)
    for rows, weight in zip((total, lower), weights, strict=True):
        rows *= weight[:, None]
        rows >>= 16
    total += lower
    total += 2
    total >>= 2
    return total.astype(np.uint8).reshape(len(above), len(left), 3)


def _neighbors(old: int, new: int) -> _Neighbors:
    places = ((np.arange(new) + 0.5) * (old / new) - 0.5).astype(np.float32)
    before = np.floor(places)
    share = places - before
    first = before.astype(np.int64)
    return _Neighbors(
        first.clip(0, old - 1),
        (first + 1).clip(0, old - 1),
        np.rint((1 - share) * _ONE).astype(np.int32),
        np.rint(share * _ONE).astype(np.int32),
    )
