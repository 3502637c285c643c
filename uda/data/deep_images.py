"""Pictures with more than 8 bits per channel: what Pillow opens, but would cut to the upper 8."""

import sys
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Range = tuple[float, float]  # the values that become 0 and 255

# In Pillow's name of what a file stores: the order of the two bytes. What is read in the other
# order is the lower 8 bits.
_OTHER_ORDER = {
    ";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"
}  # fmt: skip
_TWO_CHANNELS = "LA;16B"  # gray and transparency: four bytes, which can be read as RGBA
DEEP_GRAY = {"I;16": 16, "I;16B": 16, "I;16L": 16, "I": 32, "F": 32}  # bits by mode


def bits_of(image: Image.Image) -> int:
    """Bits per channel of a picture that was opened: 1, 8, 16 or 32."""
    if image.mode == "I" and image.format == "PNG":  # as older versions of Pillow open 16 bits
        return 16
    if image.mode in DEEP_GRAY:
        return DEEP_GRAY[image.mode]
    if image.mode == "1":
        return 1
    stored = stored_as(image)
    return 16 if image.mode in ("RGB", "RGBA", "LA") and stored[-4:] in _OTHER_ORDER else 8


def stored_as(image: Image.Image) -> str:
    """What Pillow calls the pixels in a file that was opened, such as RGB;16B; "" if loaded."""
    tiles: list[Any] = getattr(image, "tile", None) or []
    return _mode_in(tiles[0][3]) if tiles else ""


def deep_values(image: Image.Image) -> npt.NDArray[Any]:
    """(H, W) or (H, W, 3) of a picture that was opened, with more than 8 bits per channel: its
    values as they are stored, without its transparency."""
    if image.mode in DEEP_GRAY:
        return np.array(image)
    stored = stored_as(image)
    if stored == _TWO_CHANNELS:
        image._mode = "RGBA"  # Pillow has no other way to read the lower half
        _read_as(image, stored, "RGBA")
        pixels = np.asarray(image).astype(np.uint16)
        return pixels[..., 0] << 8 | pixels[..., 1]
    name = image.filename  # type: ignore[attr-defined]  # it was opened from a file
    with Image.open(name, formats=[image.format or ""]) as again:
        _read_as(again, stored[-4:], _OTHER_ORDER[stored[-4:]])
        again.load()
        lower = np.asarray(again)
    image.load()
    upper = np.asarray(image).astype(np.uint16)
    return (upper << 8 | lower)[..., :3]


def shown_levels(values: npt.NDArray[Any], image_range: Range) -> npt.NDArray[np.uint8]:
    """0..255 of values, of which the `image_range` becomes all of it; what is outside is cut."""
    low, high = image_range
    scaled = (values.astype(np.float32) - low) * (255 / (high - low))
    return np.clip(np.rint(np.nan_to_num(scaled)), 0, 255).astype(np.uint8)


def _mode_in(arguments: object) -> str:
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _read_as(image: Image.Image, old: str, new: str) -> None:
    """Has Pillow read the stored pixels by another name."""
    tiles: list[Any] = image.tile  # type: ignore[attr-defined]
    for place, tile in enumerate(tiles):
        changed = _mode_in(tile[3]).replace(old, new)
        arguments = (changed, *tile[3][1:]) if isinstance(tile[3], tuple) else changed
        # A plain tuple in older versions of Pillow.
        named = hasattr(tile, "_replace")
        tiles[place] = tile._replace(args=arguments) if named else (*tile[:3], arguments)
