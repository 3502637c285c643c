"""The colors of ISPRS label pictures, and the raw ids they stand for."""

import numpy as np
import numpy.typing as npt

from uda.errors import InputError

_LABEL_COLORS = (  # by raw id: nothing, then the classes of uda/data/isprs.py; RGB
    (0, 0, 0), (255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0),
)  # fmt: skip
_NO_COLOR = 255  # marks, while labels are read, a pixel of no such color
_ROWS = 512  # of labels that are looked at at once
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
