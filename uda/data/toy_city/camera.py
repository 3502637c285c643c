"""The toy city's two cameras: surface texture, light, and the domain gap."""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from uda.data.toy_city import drawing as labels
from uda.data.toy_city.scene import Domain, Scene

Map = npt.NDArray[np.float32]  # (H, W)
Planes = npt.NDArray[np.float32]  # (3, H, W) RGB, 0..255
Bytes = npt.NDArray[np.uint8]

_MARGIN = 64  # cells by which a texture is larger than the image, so that its crop can move
_GRAY_CITY = 0.3  # the target city itself is less colorful than the game, at any gap
_HAZE_COLOR = (196.0, 204.0, 198.0)

# Class -> (texture, amplitude in gray levels). The target swaps seven surfaces: besides color,
# the two domains differ in the patterns from which a network could tell the classes.
_SOURCE_TEXTURES = {
    labels.ROAD: ("asphalt", 9.0),
    labels.SIDEWALK: ("slabs", 26.0),
    labels.BUILDING: ("windows", 30.0),
    labels.WALL: ("bricks", 24.0),
    labels.FENCE: ("bars", 34.0),
    labels.VEGETATION: ("leaves", 22.0),
    labels.TERRAIN: ("grass", 20.0),
    labels.SKY: ("clouds", 8.0),
}
_TARGET_TEXTURES = _SOURCE_TEXTURES | {
    labels.ROAD: ("worn asphalt", 11.0),
    labels.SIDEWALK: ("cobbles", 20.0),
    labels.BUILDING: ("ribbon windows", 24.0),
    labels.WALL: ("stones", 24.0),
    labels.FENCE: ("bars and rail", 30.0),
    labels.VEGETATION: ("dense leaves", 26.0),
}


def photograph(scene: Scene, domain: Domain, rng: np.random.Generator, *, gap: float) -> Bytes:
    """The scene as the domain's camera records it: (H, W, 3) uint8 RGB.

    gap: strength of every effect of the target's camera, 0 (none) to 1; the source's has none.
    """
    canvas = np.asarray(scene.canvas)
    planes = np.ascontiguousarray(canvas[..., :3].transpose(2, 0, 1)).astype(np.float32)
    planes += _texture(canvas[..., 3], domain, rng)
    planes *= _sunlight(planes.shape[1], planes.shape[2], rng)
    if domain == "source":
        return _source_camera(planes, rng)
    return _target_camera(planes, scene.horizon, rng, gap=gap)


def _texture(train_ids: Bytes, domain: Domain, rng: np.random.Generator) -> Map:
    """Gray levels to add, by class."""
    height, width = train_ids.shape
    bank = _texture_bank(height, width)
    table = _texture_table(domain)
    scale = _cell(height)
    top, left = (int(offset) * scale for offset in rng.integers(_MARGIN, size=2))
    row = bank.shape[2]
    here = (np.arange(top, top + height) * row)[:, None] + np.arange(left, left + width)
    layer = table.layer[train_ids] * (bank.shape[1] * row)
    return bank.reshape(-1).take(layer + here) * table.amplitude[train_ids]


class _TextureTable(NamedTuple):
    layer: npt.NDArray[np.intp]  # of the bank, by train id (256 entries: 255 is void)
    amplitude: npt.NDArray[np.float32]


@lru_cache(maxsize=2)
def _texture_table(domain: Domain) -> _TextureTable:
    textures = _SOURCE_TEXTURES if domain == "source" else _TARGET_TEXTURES
    layer = np.full(256, _TEXTURES.index("plain"), np.intp)
    amplitude = np.full(256, 4.0, np.float32)
    for train_id, (name, strength) in textures.items():
        layer[train_id] = _TEXTURES.index(name)
        amplitude[train_id] = strength
    return _TextureTable(layer, amplitude)


def _cell(height: int) -> int:
    """Pixels per texture cell: a brick covers the same share of the image at every size."""
    return max(1, round(height / 128))


@lru_cache(maxsize=2)
def _texture_bank(height: int, width: int) -> Planes:
    """All textures, (layer, H + margin, W + margin) float32, about -1..1; no seed changes them."""
    cell = _cell(height)
    rows, columns = -(-height // cell) + _MARGIN, -(-width // cell) + _MARGIN
    patterns = _patterns(rows, columns, np.random.default_rng(0))
    bank = np.stack([patterns[name] for name in _TEXTURES]).astype(np.float32)
    return bank.repeat(cell, axis=1).repeat(cell, axis=2)


_TEXTURES = (
    "plain", "asphalt", "worn asphalt", "slabs", "cobbles", "windows", "ribbon windows", "bricks",
    "stones", "bars", "bars and rail", "leaves", "dense leaves", "grass", "clouds",
)  # fmt: skip


def _patterns(height: int, width: int, rng: np.random.Generator) -> dict[str, Map]:
    y, x = np.mgrid[:height, :width]

    def smooth(cell: int) -> Map:
        return _smooth_noise(height, width, cell, rng)

    def joints(tall: int, wide: int, shift: int) -> npt.NDArray[np.bool_]:
        """Lines between stones of a size; every other row is moved by `shift`."""
        return (y % tall == 0) | ((x + (y // tall) % 2 * shift) % wide == 0)

    grain = rng.standard_normal((height, width), np.float32)
    lit_windows = np.where((x % 7 < 4) & (y % 8 < 5), 1.0, -0.35)
    ribbons = np.where((y % 6 < 3) & (x % 13 < 11), 0.9, -0.4)
    planks = np.where(x % 4 < 2, 0.6, -0.7)
    railing = np.where(x % 6 < 2, 0.7, -0.4) - 0.5 * (y % 24 < 2)
    return {
        "plain": 0.8 * grain,
        "asphalt": 0.5 * grain + 0.5 * smooth(16),
        "worn asphalt": 0.5 * smooth(2) + 0.8 * smooth(7),
        "slabs": np.where(joints(8, 8, 0), -1.0, 0.2 * smooth(4)),
        "cobbles": np.where(joints(3, 5, 2), -0.9, 0.4 * smooth(3)),
        "windows": lit_windows + 0.1 * grain,
        "ribbon windows": ribbons + 0.1 * grain,
        "bricks": np.where(joints(4, 9, 4), -1.0, 0.25 * smooth(3)),
        "stones": np.tanh(2.5 * smooth(5)),
        "bars": planks + 0.1 * grain,
        "bars and rail": railing + 0.1 * grain,
        "leaves": 0.7 * smooth(2) + 0.5 * grain + 0.2 * smooth(9),
        "dense leaves": 0.5 * smooth(3) + 0.7 * smooth(7) + 0.2 * grain,
        "grass": 0.6 * grain + 0.6 * smooth(3),
        "clouds": smooth(18) + 0.1 * grain,
    }


def _smooth_noise(height: int, width: int, cell: int, rng: np.random.Generator) -> Map:
    """Unit-variance normal values on a coarse grid, bicubic between them."""
    grid = rng.standard_normal((height // cell + 3, width // cell + 3), np.float32)
    return _enlarge(grid, height, width)


def _enlarge(grid: Map, height: int, width: int) -> Map:
    resized = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized, np.float32)


def _sunlight(height: int, width: int, rng: np.random.Generator) -> Map:
    """A factor that grows steadily toward the sun's side of the image."""
    direction, strength = rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.22)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    return (1 + strength * (np.sin(direction) * y + np.cos(direction) * x)).astype(np.float32)


def _source_camera(planes: Planes, rng: np.random.Generator) -> Bytes:
    """Bright and saturated, as a video game renders."""
    _desaturate(planes, -0.12)
    planes = 128 + 1.06 * (planes - 128)
    return _to_bytes(_add_noise(planes, rng, sigma=1.5, blue=1.0))


def _target_camera(
    planes: Planes, horizon: float, rng: np.random.Generator, *, gap: float
) -> Bytes:
    """Hazy, dim, color-cast, blurred and noisy, differently in every image."""
    _, height, width = planes.shape
    _desaturate(planes, _GRAY_CITY)
    rows = (np.arange(height, dtype=np.float32) - horizon) / (0.25 * height)
    haze = gap * rng.uniform(0.05, 0.75) * np.exp(-(rows**2))
    color = np.array(_HAZE_COLOR, np.float32)[:, None, None]
    planes += haze[:, None] * (color - planes)

    planes = _tone_curve(_to_bytes(planes), rng, gap=gap)
    _desaturate(planes, gap * rng.uniform(0.2, 0.7))
    planes *= _uneven_light(height, width, rng, gap=gap)

    sigma = gap * rng.uniform(0.4, 1.1) * height / 128
    planes = _blur(_to_bytes(planes), sigma).transpose(2, 0, 1).astype(np.float32)
    # A Bayer sensor's blue channel is the noisiest: a second, independent 60 % of the same sigma.
    sigma = 0.5 + gap * rng.uniform(3, 12)
    return _to_bytes(_add_noise(planes, rng, sigma=sigma, blue=float(np.hypot(1, 0.6))))


def _desaturate(planes: Planes, share: float) -> None:
    """Moves the colors, in place, a share of the way to their gray; a negative share, away."""
    red, green, blue = planes
    gray = 0.299 * red + 0.587 * green + 0.114 * blue  # ITU-R BT.601 luma
    planes += np.float32(share) * (gray - planes)


def _tone_curve(image: Bytes, rng: np.random.Generator, *, gap: float) -> Planes:
    """White balance, gamma, gain and lift of an (H, W, 3) image, as planes."""
    cast = np.array((0.88, 1.0, 0.95)) + rng.uniform(-0.12, 0.12, 3)
    gamma, gain, lift = rng.uniform(0.9, 2.0), rng.uniform(0.5, 1.1), rng.uniform(0, 30)
    curve = np.linspace(0, 1, 256) ** (1 + (gamma - 1) * gap)
    scale = 255 * (1 + (gain - 1) * gap) * (1 + (cast - 1) * gap)
    table = (scale[:, None] * curve + gap * lift).astype(np.float32)
    return np.stack([table[channel][image[..., channel]] for channel in range(3)])


def _uneven_light(height: int, width: int, rng: np.random.Generator, *, gap: float) -> Map:
    """Smooth blotches of light and shadow, and a vignette: a factor for every pixel."""
    blotches = _enlarge(rng.standard_normal((3, 5), np.float32), height, width)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, width, dtype=np.float32)
    vignette = 1 - np.float32(gap * rng.uniform(0.2, 0.6)) * (x**2 + y**2) / 2
    return np.exp(np.float32(0.45 * gap) * blotches) * vignette


def _blur(image: Bytes, sigma: float) -> Bytes:
    """A box blur of the variance sigma^2, (H, W, 3)."""
    variance = sigma**2
    # Below a radius of 1 the box is the three taps (r, 1, r) / (1 + 2 r); wider ones are
    # treated as continuous.
    narrow = variance < 0.6
    radius = variance / (2 * (1 - variance)) if narrow else (np.sqrt(12 * variance + 1) - 1) / 2
    return np.asarray(Image.fromarray(image).filter(ImageFilter.BoxBlur(float(radius))))


def _add_noise(planes: Planes, rng: np.random.Generator, *, sigma: float, blue: float) -> Planes:
    noise = rng.standard_normal(planes.shape, np.float32)
    noise *= sigma
    noise[2] *= blue
    noise += planes
    return noise


def _to_bytes(planes: Planes) -> Bytes:
    """(3, H, W) float to (H, W, 3) uint8, clipped."""
    rounded = np.clip(planes + 0.5, 0, 255).astype(np.uint8)
    return np.ascontiguousarray(rounded.transpose(1, 2, 0))
