"""Pictures inside a page: JPEGs that together stay below a number of bytes."""

import base64
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from markupsafe import Markup
from PIL import Image

from uda.data.files import opened

ROOM = 15 * 10**6  # bytes of all pictures of a page, as a page holds them
_SIDES = (1024, 768, 640, 512, 384, 320, 256, 192, 128)  # pixels of the longer side, at most
_BYTES_PER_PIXEL = 0.09  # of a JPEG of a street at _QUALITY, as base64; labels take less
_QUALITY = 75


class PictureBudget:
    """Makes pictures of a size that lets `count` of them fit into ROOM."""

    def __init__(self, count: int, room: int = ROOM) -> None:
        self.left = room
        self._share = room // max(count, 1)
        fitting = (s for s in _SIDES if s * s * 0.6 * _BYTES_PER_PIXEL <= self._share)
        self._side = next(fitting, _SIDES[-1])

    def of_file(self, path: Path) -> Markup | None:
        """The picture in a file for the `src` of an image; None when the room is used up.

        Raises InputError, naming the file, when it cannot be decoded.
        """
        with opened(path) as image:
            # A JPEG is decoded at a fraction of its size where that is enough.
            image.draft("RGB", (self._side, self._side))
            return self.of(image.convert("RGB"))

    def of(self, image: Image.Image) -> Markup | None:
        """The same of a picture, which is made smaller in place."""
        for side in self._sides():
            image.thumbnail((side, side), reducing_gap=2.0)
            buffer = BytesIO()
            image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
            text = base64.b64encode(buffer.getvalue()).decode()
            if len(text) <= 2 * self._share:
                break
        if len(text) > self.left:
            return None
        self.left -= len(text)
        return Markup(f"data:image/jpeg;base64,{text}")  # letters and digits

    def _sides(self) -> Iterator[int]:
        yield from (side for side in _SIDES if side <= self._side)
