"""The streets of the toy city: layout, perspective and the placement of objects."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from uda.data.toy_city import objects
from uda.data.toy_city.drawing import (
    BUILDING,
    ROAD,
    SIDEWALK,
    SKY,
    TERRAIN,
    VEGETATION,
    Brush,
    Color,
    Perspective,
    foliage,
    pick,
)
from uda.labels.spaces import IGNORE_INDEX

Domain = Literal["source", "target"]
Range = tuple[float, float]
Painter = Callable[[Brush, np.random.Generator], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How one domain builds and fills its streets; sampled for every image.

    The numbers are tuned together until every class had 0.5 to 21 % of the pixels and appeared in
    a sixth of the images or more: change one, and look at tests/data/test_toy_city.py.
    """

    skies: tuple[Color, ...]
    horizon: Range  # fraction of the height
    road_width: Range  # at the bottom edge, fraction of the width
    sidewalk_width: Range  # camera heights
    terrain: float  # probability of a grass strip, per side
    terrain_width: Range  # camera heights
    # Shares of building, wall, fence, vegetation, gap along a side.
    sides: tuple[float, float, float, float, float]
    train: float  # probability
    # Mean numbers (Poisson) per image.
    cars: float
    trucks: float
    buses: float
    motorcycles: float
    bicycles: float
    riders: float  # each on a motorcycle or a bicycle of its own
    persons: float
    lamp_posts: float
    traffic_lights: float
    traffic_signs: float
    trees: float
    has_bonnet: bool  # the hood of the recording car, void


LAYOUTS: dict[Domain, Layout] = {
    "source": Layout(
        skies=((96, 174, 246), (124, 192, 250), (156, 210, 246), (92, 160, 236)),
        horizon=(0.34, 0.46), road_width=(0.55, 1.05), sidewalk_width=(0.5, 1.2),
        terrain=0.66, terrain_width=(0.5, 1.6), sides=(0.36, 0.17, 0.11, 0.28, 0.08), train=0.28,
        cars=4.4, trucks=0.45, buses=0.28, motorcycles=0.22, bicycles=0.22, riders=0.8,
        persons=1.6, lamp_posts=0.5, traffic_lights=1.4, traffic_signs=1.7, trees=1.0,
        has_bonnet=False,
    ),
    "target": Layout(
        skies=((178, 196, 210), (192, 206, 218), (166, 186, 206), (204, 212, 216)),
        horizon=(0.42, 0.54), road_width=(0.45, 0.90), sidewalk_width=(0.7, 1.7),
        terrain=0.52, terrain_width=(0.5, 1.4), sides=(0.33, 0.12, 0.08, 0.41, 0.06), train=0.3,
        cars=5.8, trucks=0.24, buses=0.24, motorcycles=0.12, bicycles=0.65, riders=0.7,
        persons=3.2, lamp_posts=0.5, traffic_lights=1.9, traffic_signs=2.4, trees=2.0,
        has_bonnet=True,
    ),
}  # fmt: skip

_FARTHEST = 0.05  # nearness at which the rows of houses end


class Scene(NamedTuple):
    canvas: Image.Image  # RGBA, alpha = train id
    horizon: float  # row, pixels


def draw_scene(domain: Domain, rng: np.random.Generator, size: tuple[int, int]) -> Scene:
    """A random street of a domain, size (height, width); before texture, light and camera."""
    height, width = size
    layout = LAYOUTS[domain]
    sky = pick(rng, layout.skies)
    canvas = Image.new("RGBA", (width, height), (*sky, SKY))
    horizon = rng.uniform(*layout.horizon) * height
    view = Perspective(
        draw=ImageDraw.Draw(canvas),
        vanishing_x=rng.uniform(0.4, 0.6) * width,
        horizon=horizon,
        ground=height - horizon,
    )
    _draw_background(view, rng, width)
    curb = rng.uniform(*layout.road_width) * width / 2 / view.ground
    edges = _draw_ground(view, rng, layout, curb=curb, size=size)
    for edge in edges:
        _draw_side(view, rng, layout, edge)
    if rng.uniform() < layout.train:
        objects.train(view, rng, edges[int(rng.integers(2))] * 0.98)
    _draw_objects(view, rng, layout, curb=curb, edges=edges)
    if layout.has_bonnet:
        _draw_bonnet(view.draw, rng, height, width)
    return Scene(canvas, horizon)


def _draw_background(view: Perspective, rng: np.random.Generator, width: int) -> None:
    """A skyline on the horizon, low enough to be seen over and between the rows of houses."""
    x = -0.05 * width
    while x < width:
        step = rng.uniform(0.05, 0.14) * width
        top = view.horizon - rng.uniform(0.04, 0.22) * view.ground
        if rng.uniform() < 0.5:
            paint = (*pick(rng, objects.FACADES), BUILDING)
            view.draw.rectangle((x, top, x + step, view.horizon + 1), fill=paint)
        else:
            box = (x - 0.2 * step, top, x + 1.2 * step, 2 * view.horizon - top)
            view.draw.ellipse(box, fill=(*foliage(rng), VEGETATION))
        x += step


def _draw_ground(
    view: Perspective,
    rng: np.random.Generator,
    layout: Layout,
    *,
    curb: float,
    size: tuple[int, int],
) -> tuple[float, float]:
    """Pavement everywhere, then grass, then the road; returns the laterals of the houses."""
    height, width = size
    slab = pick(rng, ((206, 190, 176), (196, 186, 182), (188, 176, 160)))
    asphalt = pick(rng, ((84, 84, 90), (96, 96, 100), (74, 76, 84)))
    view.draw.rectangle((0, view.horizon, width, height), fill=(*slab, SIDEWALK))
    edges = []
    for side in (-1, 1):
        edge = curb + rng.uniform(*layout.sidewalk_width)
        if rng.uniform() < layout.terrain:
            outer = edge + rng.uniform(*layout.terrain_width)
            grass = pick(rng, ((112, 166, 60), (134, 170, 74), (96, 148, 52)))
            view.strip((*grass, TERRAIN), side * edge, side * outer, 1.1, 0)
            edge = outer
        edges.append(side * edge)
    view.strip((*asphalt, ROAD), -curb, curb, 1.1, 0)
    for line in (0.0,) if rng.uniform() < 0.5 else (-curb / 3, curb / 3):
        _draw_dashes(view, line, shift=rng.uniform(1.0, 1.5))
    return edges[0], edges[1]


def _draw_dashes(view: Perspective, lateral: float, *, shift: float) -> None:
    # Distance is 1 / nearness: equal steps of it are equal dashes on the road.
    for k in range(12):
        near, far = 1 / (shift + 0.9 * k), 1 / (shift + 0.9 * k + 0.35)
        view.strip((232, 232, 214, ROAD), lateral - 0.035, lateral + 0.035, near, far)


def _draw_side(view: Perspective, rng: np.random.Generator, layout: Layout, lateral: float) -> None:
    """A row of houses, walls, fences, hedges and gaps along one side, the farthest first."""
    cuts = [1.8]
    while cuts[-1] > _FARTHEST:
        cuts.append(cuts[-1] * rng.uniform(0.5, 0.8))
    builders = (objects.building, objects.wall, objects.fence, objects.hedge, None)
    for near, far in zip(cuts[-2::-1], cuts[:0:-1], strict=True):
        build = builders[int(rng.choice(5, p=layout.sides))]
        if build is not None:
            build(view, rng, lateral, near, far)


def _draw_objects(
    view: Perspective,
    rng: np.random.Generator,
    layout: Layout,
    *,
    curb: float,
    edges: tuple[float, float],
) -> None:
    """All objects on the ground, the farthest first."""
    placements: list[tuple[float, float, Painter]] = []  # nearness, lateral, painter

    def place(painter: Painter, mean: float, near: Range, where: Callable[[], float]) -> None:
        for _ in range(int(rng.poisson(mean))):
            # Uniform in the logarithm: as many between 1/8 and 1/4 as between 1/4 and 1/2.
            nearness = float(np.exp(rng.uniform(*np.log(near))))
            placements.append((nearness, where(), painter))

    def lane() -> float:
        return curb * (0.5 * rng.choice((-1, 1)) + rng.uniform(-0.12, 0.12))

    def beside_road() -> float:
        return rng.choice((-1, 1)) * (curb + rng.uniform(0.06, 0.2))

    def pavement() -> float:
        edge = edges[int(rng.integers(2))]
        return edge + (np.sign(edge) * curb - edge) * rng.uniform(0.1, 0.8)

    def anywhere() -> float:
        return pavement() if rng.uniform() < 0.7 else curb * rng.uniform(-0.95, 0.95)

    place(objects.car, layout.cars, (0.14, 0.72), lane)
    place(objects.truck, layout.trucks, (0.2, 0.6), lane)
    place(objects.bus, layout.buses, (0.2, 0.6), lane)
    place(objects.motorcycle, layout.motorcycles, (0.25, 0.85), pavement)
    place(objects.bicycle, layout.bicycles, (0.25, 0.85), pavement)
    place(objects.rider, layout.riders, (0.25, 0.85), anywhere)
    place(objects.person, layout.persons, (0.2, 0.85), anywhere)
    place(objects.lamp_post, layout.lamp_posts, (0.15, 0.9), beside_road)
    place(objects.traffic_light, layout.traffic_lights, (0.2, 0.9), beside_road)
    place(objects.traffic_sign, layout.traffic_signs, (0.2, 0.9), beside_road)
    place(objects.tree, layout.trees, (0.15, 0.8), lambda: 1.05 * edges[int(rng.integers(2))])
    for nearness, lateral, painter in sorted(placements, key=lambda placed: placed[0]):
        painter(view.brush(lateral, nearness, rng), rng)


def _draw_bonnet(
    draw: ImageDraw.ImageDraw, rng: np.random.Generator, height: int, width: int
) -> None:
    top = height * rng.uniform(0.95, 0.965)
    draw.polygon(
        [(0.08 * width, height), (0.18 * width, top), (0.82 * width, top), (0.92 * width, height)],
        fill=(30, 32, 36, IGNORE_INDEX),
    )
