"""Pictures for people: label maps in their colors, side by side, with a legend."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from uda.labels.spaces import LabelSpace

_TEXT_SIZE = 14  # pixels
_MARGIN = 6
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)

Picture = npt.NDArray[np.uint8]  # (H, W, 3) RGB


def overlaid(image: Picture, colors: Picture, covered: float) -> Picture:
    """An image under the colors of its classes, which cover so much of it."""
    mixed = (1 - covered) * image + covered * colors.astype(np.float32)
    return np.rint(mixed).astype(np.uint8)


def comparison(
    rows: Sequence[Sequence[Picture]], titles: Sequence[str], label_space: LabelSpace
) -> Image.Image:
    """Rows of equally large pictures under their titles, above a legend of the classes.

    Raises ValueError when a row has not one picture for each title.
    """
    if any(len(row) != len(titles) for row in rows):
        raise ValueError(f"every row needs {len(titles)} pictures, one for each title")
    height, width = rows[0][0].shape[:2]
    line = _TEXT_SIZE + 2 * _MARGIN
    legend = legend_of(label_space, len(titles) * (width + _MARGIN) - _MARGIN)
    sheet = Image.new(
        "RGB", (legend.width, line + len(rows) * (height + _MARGIN) + legend.height), _WHITE
    )
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=_TEXT_SIZE)
    for column, title in enumerate(titles):
        left = column * (width + _MARGIN)
        pen.text((left + width / 2, line / 2), title, _BLACK, font=font, anchor="mm")
        for row, pictures in enumerate(rows):
            top = line + row * (height + _MARGIN)
            sheet.paste(Image.fromarray(pictures[column]), (left, top))
    sheet.paste(legend, (0, sheet.height - legend.height))
    return sheet


def legend_of(label_space: LabelSpace, width: int) -> Image.Image:
    """A swatch and a name for each class and for unlabeled pixels, in as many lines as needed to be
    about `width` pixels wide."""
    entries = [
        *zip(label_space.palette, label_space.classes, strict=True),
        (_BLACK, "not labeled"),
    ]
    font = ImageFont.load_default(size=_TEXT_SIZE)
    swatch = _TEXT_SIZE
    cell = 3 * _MARGIN + swatch + max(round(font.getlength(name)) for _, name in entries)
    per_line = max(width // cell, 1)
    lines = -(-len(entries) // per_line)
    legend = Image.new("RGB", (width, lines * (swatch + _MARGIN) + _MARGIN), _WHITE)
    pen = ImageDraw.Draw(legend)
    for index, (color, name) in enumerate(entries):
        left = _MARGIN + index % per_line * cell
        top = _MARGIN + index // per_line * (swatch + _MARGIN)
        pen.rectangle((left, top, left + swatch, top + swatch), fill=color, outline=_BLACK)
        middle = (left + swatch + _MARGIN, top + swatch / 2)
        pen.text(middle, name, _BLACK, font=font, anchor="lm")
    return legend
