"""Contrast limited adaptive histogram equalization of gray images and of the lightness of
colors.

Source: Zuiderveld, "Contrast Limited Adaptive Histogram Equalization", Graphics Gems IV, 1994;
rounding as in OpenCV's CLAHE.
"""

import numpy as np
import numpy.typing as npt

Levels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_TILES = 8  # down and across
_LEVELS = 256

# Linear RGB under sRGB's white, D65, to CIE XYZ, each row divided by the white's X, Y or Z.
RGB_TO_XYZ = np.array(
    [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
) / np.array([[0.950456], [1.0], [1.088754]])
_FROM_XYZ = np.linalg.inv(RGB_TO_XYZ)
# CIE 1976: below the cube of 6 / 29 the cube root becomes a line.
_BEND = 6 / 29


def equalize_lightness(image: Levels, *, clip_limit: float) -> Levels:
    """RGB (H, W, 3) with L of CIE LAB equalized by `clahe`; a and b are kept."""
    linear = _linear_light()[image]
    roots = _root(linear @ RGB_TO_XYZ.T.astype(np.float32))
    lightness = (1.16 * roots[..., 1] - 0.16) * (_LEVELS - 1)
    equalized = clahe(lightness.round().clip(0, 255).astype(np.uint8), clip_limit=clip_limit)
    # a and b are differences of the roots: all three move alike.
    roots += ((equalized - lightness) / (1.16 * (_LEVELS - 1)))[..., None].astype(np.float32)
    light = np.where(roots > _BEND, roots**3, 3 * _BEND**2 * (roots - 4 / 29))
    return _bytes(light @ _FROM_XYZ.T.astype(np.float32))


def clahe(gray: Levels, *, clip_limit: float) -> Levels:
    """`gray` (H, W) with the histogram of each of 8x8 tiles equalized, interpolated between tiles.

    clip_limit: the largest count of a level, in multiples of the tile's mean count; the excess is
        distributed evenly over all levels. 1 changes almost nothing.
    """
    height, width = gray.shape
    padded = _whole_tiles(gray)
    size = (padded.shape[0] // _TILES, padded.shape[1] // _TILES)
    tables = _tables(padded, size, clip_limit)
    above, below, down = _neighbors(height, size[0])
    left, right, across = _neighbors(width, size[1])

    def seen(rows: npt.NDArray[np.intp], columns: npt.NDArray[np.intp]) -> Floats:
        return tables[rows[:, None], columns[None], gray]

    down, across = down[:, None], across[None]
    upper = seen(above, left) * (1 - across) + seen(above, right) * across
    lower = seen(below, left) * (1 - across) + seen(below, right) * across
    return np.rint(upper * (1 - down) + lower * down).astype(np.uint8)


def _whole_tiles(gray: Levels) -> Levels:
    """Padded by reflection at the bottom and on the right until all tiles have one size. As in
    OpenCV, if one side needs padding, a side that does not grows by a row or column per tile."""
    missing = [_TILES - length % _TILES for length in gray.shape]
    if missing == [_TILES, _TILES]:
        return gray
    return np.pad(gray, [(0, missing[0]), (0, missing[1])], mode="reflect")


def _tables(padded: Levels, size: tuple[int, int], clip_limit: float) -> Floats:
    """(8, 8, 256): the new level for each level in each tile."""
    pixels = size[0] * size[1]
    tiles = padded.reshape(_TILES, size[0], _TILES, size[1]).swapaxes(1, 2).reshape(-1, pixels)
    offsets = np.arange(len(tiles))[:, None] * _LEVELS
    counts = np.bincount((tiles + offsets).ravel(), minlength=len(tiles) * _LEVELS)
    counts = _clipped(counts.reshape(-1, _LEVELS), max(int(clip_limit * pixels / _LEVELS), 1))
    spread = counts.cumsum(axis=1).astype(np.float32) * np.float32((_LEVELS - 1) / pixels)
    return np.rint(spread).clip(0, 255).astype(np.float32).reshape(_TILES, _TILES, _LEVELS)


def _clipped(counts: npt.NDArray[np.intp], limit: int) -> npt.NDArray[np.intp]:
    """Counts clipped at `limit`, with the excess distributed evenly over all levels."""
    excess = (counts - limit).clip(0).sum(axis=1)
    counts = counts.clip(max=limit) + (excess // _LEVELS)[:, None]
    for tile, rest in zip(counts, excess % _LEVELS, strict=True):
        if rest:
            tile[: rest * (_LEVELS // rest) : _LEVELS // rest] += 1
    return counts


def _neighbors(length: int, tile: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], Floats]:
    """For each position, the tiles centered before and after it, and the latter's weight."""
    place = np.arange(length, dtype=np.float32) * np.float32(1 / tile) - np.float32(0.5)
    before = np.floor(place).astype(np.intp)
    share = place - before.astype(np.float32)
    return before.clip(0), (before + 1).clip(max=_TILES - 1), share


def _linear_light() -> Floats:
    """(256,): linear light in 0..1 of each level of sRGB."""
    levels = np.arange(_LEVELS) / (_LEVELS - 1)
    return np.where(levels > 0.04045, ((levels + 0.055) / 1.055) ** 2.4, levels / 12.92).astype(
        np.float32
    )


def _root(values: Floats) -> Floats:
    return np.where(values > _BEND**3, np.cbrt(values), values / (3 * _BEND**2) + 4 / 29)


def _bytes(light: Floats) -> Levels:
    """The levels of sRGB nearest to light in 0..1."""
    light = light.clip(0, 1)
    levels = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.rint(levels * (_LEVELS - 1)).astype(np.uint8)
