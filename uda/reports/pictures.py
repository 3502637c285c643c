"""Pictures inside a page: files that together stay below a number of bytes."""

import base64
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from uda.data.files import opened

ROOM = 15 * 10**6  # bytes of all pictures of a page, as a page holds them
_SIDES = (1024, 768, 640, 512, 384, 320, 256, 192, 128)  # pixels of the longer side, at most
_BYTES_PER_PIXEL = 0.09  # of a JPEG of a street at _QUALITY, as base64; labels take less
_QUALITY = 75


Bytes = npt.NDArray[np.uint8]
Map = TypeVar("Map", Bytes, npt.NDArray[np.float32])


class PictureBudget:
    """Makes pictures of a size that lets all of them fit into ROOM, which is divided into parts."""

    def __init__(self, parts: float, room: int = ROOM) -> None:
        self._left = room
        self._parts = max(parts, 1.0)
        share = room / self._parts
        fitting = (s for s in _SIDES if s * s * 0.6 * _BYTES_PER_PIXEL <= share)
        self._side = next(fitting, _SIDES[-1])

    def of_file(self, path: Path) -> Markup | None:
        """The picture in a file for the `src` of an image; None when the room is used up.

        Raises InputError, naming the file, when it cannot be decoded.
        """
        with opened(path) as image:
            # A JPEG is decoded at a fraction of its size where that is enough.
            image.draft("RGB", (self._side, self._side))
            return self.of(image.convert("RGB"))

    def of(self, image: Image.Image, *, parts: float = 1) -> Markup | None:
        """The same of a picture, which is made smaller in place."""

        def smaller(side: int) -> bytes:
            image.thumbnail((side, side), reducing_gap=2.0)
            return _file(image, "JPEG", quality=_QUALITY, optimize=True)

        return self._fitting(smaller, "jpeg", parts)

    def of_map(
        self, values: Bytes, palette: Sequence[tuple[int, int, int]], *, parts: float = 1
    ) -> Markup | None:
        """The same of a map (H, W) of places in `palette`; beyond its end, a pixel is black."""
        colors = bytes(level for color in palette for level in color)

        def smaller(side: int) -> bytes:
            image = Image.fromarray(_reduced(values, side))
            image.putpalette(colors.ljust(768, b"\0"))
            return _file(image, "PNG", optimize=True)

        return self._fitting(smaller, "png", parts)

    def smaller(self, values: Map) -> Map:
        """A map (H, W) no larger than a picture of it can be."""
        return _reduced(values, self._side)

    def _fitting(self, made: Callable[[int], bytes], kind: str, parts: float) -> Markup | None:
        """What `made` makes of the largest side that fits into so many of the parts left."""
        allowed = self._left * min(1.0, parts / max(self._parts, parts))
        self._parts -= parts
        for side in (side for side in _SIDES if side <= self._side):
            text = base64.b64encode(made(side)).decode()
            if len(text) <= allowed:
                break
        if len(text) > self._left:
            return None
        self._left -= len(text)
        return Markup(f"data:image/{kind};base64,{text}")  # letters and digits


def _reduced(values: Map, side: int) -> Map:
    """Nearest neighbors of a map, at most `side` of them along its longer side."""
    if max(values.shape) <= side:
        return values
    rows, columns = (
        np.linspace(0, whole - 1, max(1, round(whole * side / max(values.shape)))).astype(np.int64)
        for whole in values.shape
    )
    return np.ascontiguousarray(values[rows[:, None], columns])


def _file(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
