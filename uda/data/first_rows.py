"""Decoding no more of a PNG than a crop needs: its rows are stored from top to bottom."""

from typing import Any

from PIL import Image

from uda.data.png_checks import is_whole_png

_WORTHWHILE = 0.95  # of the rows: reading the checksums of all parts takes a hundredth
_LARGEST = 2**28  # bytes


def keep_first_rows(image: Image.Image, rows: int) -> None:
    """Makes a picture that was opened and not decoded end after `rows` rows where that saves work:
    where it is a PNG that is stored row by row, once, in a file that is whole.

    What is not decoded is not checked by decoding it, so the checksums of all parts are. A file
    that has a wrong one is left as it is: it is decoded whole, or refused.
    """
    tiles: list[Any] = getattr(image, "tile", None) or []
    if (
        image.format != "PNG"
        or rows > _WORTHWHILE * image.height
        or len(tiles) != 1
        or tiles[0][0] != "zip"
        or image.info.get("interlace")
        or getattr(image, "n_frames", 1) != 1
    ):
        return
    file: Any = image.fp  # type: ignore[attr-defined]  # it was opened from a file
    place = file.tell()
    file.seek(0)
    content = file.read(_LARGEST + 1)
    file.seek(place)
    if len(content) > _LARGEST or not is_whole_png(memoryview(content)):
        return
    whole, size = tiles[0], (image.width, rows)
    codec, _, *rest = whole
    # A plain tuple in older versions of Pillow.
    named = hasattr(whole, "_replace")
    extents = (0, 0, *size)
    image.tile = [  # type: ignore[attr-defined]
        whole._replace(extents=extents) if named else (codec, extents, *rest)
    ]
    image._size = size  # as its own `draft` does for a JPEG
