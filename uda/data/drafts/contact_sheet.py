"""A contact sheet: for each value in label files, images with its pixels lit up.

Beside each value stand its number, its name if there is one, its color, how often it occurs and
where in the image it lies; so a person names the values at a glance.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from uda.data.drafts.classes import Seen, color_of, read_codes
from uda.data.files import range_of, read_image
from uda.utilities.errors import InputError

MOST_VALUES = 64
_EXAMPLES = 3
_WIDTH, _HEIGHT = 240, 160  # of an example, in pixels
_TEXT_WIDTH = 300
_GAP = 8
_DARK = 0.25  # what is left of the image where the value is not
_LIT = (255, 230, 0)  # the color of the value's outline


def contact_sheet(seen: Seen, names: Mapping[int, str], images: Mapping[Path, Path]) -> Image.Image:
    """RGB: a row for each of the first 64 values or colors in `seen`, most pixels first in its
    examples. `names`: of values or color codes; `images`: the image of each label file."""
    codes = sorted(seen.statistics.of)[:MOST_VALUES]
    width = _TEXT_WIDTH + _EXAMPLES * (_WIDTH + _GAP) + _GAP
    sheet = Image.new("RGB", (width, len(codes) * (_HEIGHT + _GAP) + _GAP), (32, 32, 32))
    image_range = range_of(tuple(images.values()))
    for row, code in enumerate(codes):
        top = _GAP + row * (_HEIGHT + _GAP)
        _write(sheet, top, code, seen, names.get(code, ""))
        for place, (_, labels) in enumerate(seen.statistics.of[code].examples[:_EXAMPLES]):
            left = _TEXT_WIDTH + place * (_WIDTH + _GAP)
            example = _example(labels, images.get(labels), code, seen, image_range)
            sheet.paste(example, (left, top))
    return sheet


def _write(sheet: Image.Image, top: int, code: int, seen: Seen, name: str) -> None:
    draw = ImageDraw.Draw(sheet)
    by_color = bool(seen.colors)
    color = color_of(code) if by_color else seen.palette.get(code)
    title = str(list(color_of(code))) if by_color else f"{code}"
    draw.text((_GAP, top), f"{title}  {name}".strip(), "white", ImageFont.load_default(26))
    words = seen.statistics.words(code).split(", ")
    for line, text in enumerate(words):
        draw.text((_GAP, top + 40 + 22 * line), text, (200, 200, 200), ImageFont.load_default(16))
    if color is not None:
        bottom = top + _HEIGHT - 4
        draw.rectangle((_GAP, bottom - 30, _GAP + 60, bottom), fill=color, outline="white")


def _example(
    labels: Path, image: Path | None, code: int, seen: Seen, image_range: tuple[float, float] | None
) -> Image.Image:
    """The image with all but the value's pixels darkened, or those pixels alone."""
    codes = read_codes(labels, stored=seen.small).codes
    if seen.channel:
        codes = codes[..., ("red", "green", "blue").index(seen.channel)]
    mask = Image.fromarray(np.where(codes == code, np.uint8(255), np.uint8(0)))
    try:
        picture = read_image(image, image_range=image_range) if image else None
    except InputError:
        picture = None
    base = Image.new("RGB", mask.size, (128, 128, 128)) if picture is None else picture
    scale = min(_WIDTH / base.width, _HEIGHT / base.height)
    size = max(1, round(base.width * scale)), max(1, round(base.height * scale))
    # Box, so that lines of one pixel do not vanish.
    lit = np.asarray(mask.resize(size, Image.Resampling.BOX)) > 0
    pixels = np.asarray(base.resize(size)).astype(np.float32)
    pixels[~lit] *= _DARK
    edge = lit & ~(
        np.roll(lit, 1, 0) & np.roll(lit, -1, 0) & np.roll(lit, 1, 1) & np.roll(lit, -1, 1)
    )
    pixels[edge] = _LIT
    return Image.fromarray(pixels.astype(np.uint8))
