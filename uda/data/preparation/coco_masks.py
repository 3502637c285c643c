"""Masks of single objects as COCO's and Kaggle's annotation files write them.

Source: the annotation format of cocodataset.org; run-length encoding of the iMaterialist
(Fashion) challenges at Kaggle.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from uda.data.files import MAX_PIXELS
from uda.utilities.errors import InputError, require, require_size, shown

Mask = npt.NDArray[np.bool_]
Size = tuple[int, int]  # (height, width)

_FIRST_CHARACTER = 48  # "0", written for the six bits 000000
_LONGEST_NUMBER = 7  # characters: 35 bits, and runs have 32


def segmentation_mask(segmentation: object, size: Size) -> Mask:
    """The mask (H, W) of COCO's field `segmentation`: a list of polygons, or run lengths as
    {"counts": ..., "size": [H, W]}.

    Raises InputError when it is neither, or not of an image of `size`.
    """
    if isinstance(segmentation, list):
        return polygons_to_mask(segmentation, size)
    require(
        isinstance(segmentation, Mapping) and {"counts", "size"} <= segmentation.keys(),
        f"segmentation is {shown(segmentation)}; allowed: polygons, or counts with a size",
    )
    assert isinstance(segmentation, Mapping)
    own = segmentation["size"]
    require(
        isinstance(own, list) and own == list(size),
        f"segmentation has size {shown(own)}, its image {list(size)}; allowed: the image's",
    )
    return decode_rle(segmentation["counts"], size)


def decode_rle(counts: str | bytes | list[int], size: Size) -> Mask:
    """The mask (H, W) of run lengths that alternate from background to object, down the columns
    from left to right: a list, or COCO's compressed text.

    The text holds five bits in a character, the lowest first; from the fourth number on it is the
    difference to the last but one. Raises InputError when runs are negative, or do not fill `size`.
    """
    _check(size)
    runs = _uncompressed(counts) if isinstance(counts, str | bytes) else counts
    whole = isinstance(runs, list) and all(type(run) is int for run in runs)
    require(whole, f"run lengths are {shown(counts)}; allowed: text, or a list of whole numbers")
    pixels = size[0] * size[1]
    require(
        min(runs, default=0) >= 0 and sum(runs) == pixels,
        f"run lengths {shown(counts)} are negative or do not add up to the {pixels} pixels of "
        f"{size[1]}x{size[0]}: the annotation is damaged or another image's",
    )
    return _from_runs(runs, size)


def decode_kaggle(text: str, size: Size) -> Mask:
    """The mask (H, W) of Kaggle's `EncodedPixels`: pairs of a start, counted from 1 down the
    columns from left to right, and a length; the pairs ascend. An empty text is an empty mask.

    Raises InputError when the text is invalid or exceeds the image.
    """
    _check(size)
    try:
        numbers = [int(word) for word in text.split()]
    except ValueError:
        numbers = [0]
    starts, lengths = numbers[::2], numbers[1::2]
    pixels = size[0] * size[1]
    fits = len(starts) == len(lengths) and min(numbers, default=1) > 0
    ends = [start + length for start, length in zip(starts, lengths, strict=fits)]
    require(
        fits
        and max(ends, default=0) <= pixels + 1
        and all(end <= start for end, start in zip(ends, starts[1:], strict=False)),
        f"EncodedPixels {shown(text)} are not ascending pairs of start (from 1) and length within "
        f"the {pixels} pixels of {size[1]}x{size[0]}: the row is damaged or another image's",
    )
    places = [1, *(place for pair in zip(starts, ends, strict=True) for place in pair), pixels + 1]
    return _from_runs([after - before for before, after in pairwise(places)], size)


def polygons_to_mask(polygons: Sequence[Sequence[float]], size: Size) -> Mask:
    """The mask (H, W) of all pixels whose center lies in at least one polygon
    [x0, y0, x1, y1, ...]; x and y are measured from the corner of the image.

    Where a polygon covers itself twice there is a hole, as in pycocotools; that follows outlines in
    fifths of a pixel, so single pixels on an outline may differ. (Pillow paints whole outlines,
    which makes every object half a pixel wider on each side.) Raises InputError when a polygon has
    no three points or leaves the image by more than its size.
    """
    _check(size)
    require(
        isinstance(polygons, list) and len(polygons) > 0,
        f"polygons are {shown(polygons)}; allowed: a list of one or more",
    )
    mask = np.zeros(size, np.bool_)
    for polygon in polygons:
        first, inside = _inside(_points(polygon, size), size)
        mask[first : first + len(inside)] |= inside
    return mask


def _check(size: Size) -> None:
    require_size("the size of a mask", size)
    require(
        size[0] * size[1] <= MAX_PIXELS,
        f"the size of a mask is {size}; allowed: up to {MAX_PIXELS} pixels",
    )


def _from_runs(runs: Sequence[int], size: Size) -> Mask:
    """Background and object in turns, down the columns."""
    return _in_turns(runs).reshape(size[1], size[0]).T


def _in_turns(runs: Sequence[int] | npt.NDArray[np.int64]) -> Mask:
    """(sum of runs) False for the first run, True for the second, and so on."""
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def _uncompressed(text: str | bytes) -> list[int]:
    codes = text.encode("ascii", "replace") if isinstance(text, str) else text
    runs: list[int] = []
    number = place = 0
    for code in codes:
        bits = code - _FIRST_CHARACTER
        if not 0 <= bits < 64 or place == _LONGEST_NUMBER:
            raise InputError(f"run lengths {shown(text)} are not in COCO's compressed form")
        number |= (bits & 31) << 5 * place
        place += 1
        if bits & 32:  # the number continues
            continue
        if bits & 16:  # a negative one
            number -= 1 << 5 * place
        runs.append(number + (runs[-2] if len(runs) > 2 else 0))
        number = place = 0
    require(place == 0, f"run lengths {shown(text)} end within a number")
    return runs


def _points(polygon: object, size: Size) -> npt.NDArray[np.float64]:
    """(points, 2) x and y; InputError unless they make a polygon of an image of `size`."""
    numbers = isinstance(polygon, list) and all(type(v) in (int, float) for v in polygon)
    require(
        numbers and isinstance(polygon, list) and len(polygon) >= 6 and len(polygon) % 2 == 0,
        f"polygon {shown(polygon)} is not a list of three or more x, y",
    )
    try:
        points = np.array(polygon, np.float64).reshape(-1, 2)
    except OverflowError:
        points = np.full((3, 2), np.inf)
    height, width = size
    require(
        bool((np.abs(points - (width / 2, height / 2)) <= (1.5 * width, 1.5 * height)).all()),
        f"polygon {shown(polygon)} is outside of an image of {width}x{height}",
    )
    return points


def _inside(points: npt.NDArray[np.float64], size: Size) -> tuple[int, Mask]:
    """The first row that a polygon may touch, and from there on which pixels' centers it holds.

    A ray from the left enters and leaves by turns: each edge toggles, in the rows whose centers it
    passes, everything to its right.
    """
    height, width = size
    x0, y0 = points.T
    x1, y1 = np.roll(points, -1, axis=0).T
    # The rows whose centers, at n + 0.5, lie in [upper, lower): points that two edges share count
    # once, and level edges not at all.
    begin = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(np.int64)
    end = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(np.int64)
    counts = end - begin
    total = int(counts.sum())
    require(total <= MAX_PIXELS, f"a polygon of {len(points)} points crosses {total} rows")
    edge = np.repeat(np.arange(len(points)), counts)
    rows = begin[edge] + np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
    share = (rows + 0.5 - y0[edge]) / (y1 - y0)[edge]
    crossing = x0[edge] + share * (x1 - x0)[edge]
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    first, last = int(begin.min()), int(end.max())
    # In reading order they are ends of runs, in each row an even number: one polygon is closed.
    places = np.sort((rows - first) * width + columns)
    runs = np.diff(places, prepend=0, append=(last - first) * width)
    return first, _in_turns(runs).reshape(last - first, width)
