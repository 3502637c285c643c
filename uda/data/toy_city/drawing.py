"""Tools of the toy city's painters: labels, colors, perspective, and a brush for each object."""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import ImageDraw

Color = tuple[int, int, int]
Paint = tuple[int, int, int, int]  # red, green, blue, train id: one call sets color and label

# Train ids of uda.labels.spaces.CITYSCAPES, in order.
(
    ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, TRAFFIC_LIGHT, TRAFFIC_SIGN, VEGETATION, TERRAIN,
    SKY, PERSON, RIDER, CAR, TRUCK, BUS, TRAIN, MOTORCYCLE, BICYCLE,
) = range(19)  # fmt: skip

TIRE: Color = (28, 28, 30)
GLASS: Color = (38, 50, 62)
STEEL: Color = (112, 116, 120)
WHITE: Color = (244, 244, 240)
RED: Color = (222, 26, 28)
HEADLIGHT: Color = (255, 246, 196)
SKIN: tuple[Color, ...] = ((236, 190, 152), (206, 150, 110), (140, 94, 66))


def vivid(rng: np.random.Generator) -> Color:
    """A random saturated color, as of lacquer and clothes."""
    red, green, blue = colorsys.hsv_to_rgb(
        rng.uniform(), rng.uniform(0.45, 0.95), rng.uniform(0.5, 0.95)
    )
    return int(255 * red), int(255 * green), int(255 * blue)


def lacquer(rng: np.random.Generator) -> Color:
    """A car's color: every third one is white, gray or black."""
    if rng.uniform() < 0.35:
        gray = int(rng.choice((62, 90, 168, 206, 240)))
        return gray, gray, min(255, gray + 4)
    return vivid(rng)


def shade(color: Color, factor: float) -> Color:
    """The color, darker (factor < 1) or lighter, clipped to 255."""
    red, green, blue = (min(255, int(channel * factor)) for channel in color)
    return red, green, blue


def pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    return colors[int(rng.integers(len(colors)))]


def foliage(rng: np.random.Generator) -> Color:
    return pick(rng, ((44, 142, 46), (66, 124, 42), (34, 104, 52), (92, 140, 50)))


class Brush:
    """Draws around a foot point on the ground; x to the right, y up, one unit = camera height."""

    def __init__(
        self,
        draw: ImageDraw.ImageDraw,
        *,
        x: float,
        ground: float,
        unit: float,  # pixels
        mirror: bool = False,
        stretch: float = 1.0,  # of the heights, so that no two cars are alike
    ) -> None:
        self.draw = draw
        self.x, self.ground = x, ground
        self.unit_x = -unit if mirror else unit
        self.unit_y = unit * stretch

    def _corners(
        self, left: float, bottom: float, right: float, top: float
    ) -> tuple[float, float, float, float]:
        x0, x1 = sorted((self.x + left * self.unit_x, self.x + right * self.unit_x))
        return x0, self.ground - top * self.unit_y, x1, self.ground - bottom * self.unit_y

    def box(self, paint: Paint, left: float, bottom: float, right: float, top: float) -> None:
        """A rectangle, however small at least a pixel: Pillow includes both ends."""
        self.draw.rectangle(self._corners(left, bottom, right, top), fill=paint)

    def oval(self, paint: Paint, left: float, bottom: float, right: float, top: float) -> None:
        self.draw.ellipse(self._corners(left, bottom, right, top), fill=paint)

    def disc(self, paint: Paint, x: float, y: float, radius: float) -> None:
        self.oval(paint, x - radius, y - radius, x + radius, y + radius)

    def shape(self, paint: Paint, *points: tuple[float, float]) -> None:
        self.draw.polygon(
            [(self.x + x * self.unit_x, self.ground - y * self.unit_y) for x, y in points],
            fill=paint,
        )

    def post(self, paint: Paint, x: float, top: float, width: float) -> None:
        """A vertical bar from the ground."""
        self.box(paint, x - width / 2, 0, x + width / 2, top)


@dataclass(frozen=True, slots=True)
class Perspective:
    """A flat world seen from one unit above it: nearness 1 is the bottom edge, 0 the horizon."""

    draw: ImageDraw.ImageDraw
    vanishing_x: float  # pixels
    horizon: float  # pixels
    ground: float  # pixels from the horizon to the bottom edge

    def point(self, lateral: float, height: float, nearness: float) -> tuple[float, float]:
        """The pixel (x, y) of a point of the world; lengths in camera heights."""
        unit = self.ground * nearness
        return self.vanishing_x + lateral * unit, self.horizon + (1 - height) * unit

    def brush(self, lateral: float, nearness: float, rng: np.random.Generator) -> Brush:
        x, ground = self.point(lateral, 0, nearness)
        mirror = bool(rng.integers(2))
        stretch = rng.uniform(0.92, 1.12)
        unit = self.ground * nearness
        return Brush(self.draw, x=x, ground=ground, unit=unit, mirror=mirror, stretch=stretch)

    def strip(self, paint: Paint, left: float, right: float, near: float, far: float) -> None:
        """A piece of the ground between two laterals."""
        corners = ((left, near), (left, far), (right, far), (right, near))
        self.draw.polygon([self.point(x, 0, t) for x, t in corners], fill=paint)

    def panel(
        self, paint: Paint, lateral: float, *, near: float, far: float, bottom: float, top: float
    ) -> None:
        """An upright surface along the street."""
        corners = ((bottom, near), (top, near), (top, far), (bottom, far))
        self.draw.polygon([self.point(lateral, y, t) for y, t in corners], fill=paint)
