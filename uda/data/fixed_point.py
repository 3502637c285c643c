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


def resize_fixed_point(
    pixels: npt.NDArray[np.uint8], size: tuple[int, int]
) -> npt.NDArray[np.uint8]:
    """(h, w, 3) resized to (*size, 3)."""
    left, right, weight_left, weight_right = _neighbors(pixels.shape[1], size[1])
    # In a column beyond the outermost centers the one pixel has the whole weight; rows are weighted
    # as if there were two, whose products are rounded.
    outside = left == right
    weight_left[outside], weight_right[outside] = _ONE, 0
    wide = pixels.astype(np.int32)
    wide = (wide[:, left] * weight_left[:, None] + wide[:, right] * weight_right[:, None]) >> 4
    above, below, *weights = _neighbors(pixels.shape[0], size[0])
    upper, lower = (weight[:, None, None] for weight in weights)
    total = ((wide[above] * upper) >> 16) + ((wide[below] * lower) >> 16)
    return ((total + 2) >> 2).astype(np.uint8)


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
