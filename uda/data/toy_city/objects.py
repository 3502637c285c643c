"""The objects of the toy city: one function per object, each painting color and label."""

import numpy as np

from uda.data.toy_city.drawing import (
    BICYCLE,
    BUILDING,
    BUS,
    CAR,
    FENCE,
    GLASS,
    HEADLIGHT,
    MOTORCYCLE,
    PERSON,
    POLE,
    RED,
    RIDER,
    SKIN,
    STEEL,
    TIRE,
    TRAFFIC_LIGHT,
    TRAFFIC_SIGN,
    TRAIN,
    TRUCK,
    VEGETATION,
    WALL,
    WHITE,
    Brush,
    Color,
    Perspective,
    foliage,
    lacquer,
    pick,
    shade,
    vivid,
)

FACADES: tuple[Color, ...] = (
    (206, 152, 108), (214, 138, 128), (198, 176, 150), (140, 104, 96), (226, 200, 140),
    (150, 142, 146),
)  # fmt: skip
# Riders wear high-visibility colors, persons muted ones: a small network must tell them apart
# within minutes of training.
SUITS: tuple[Color, ...] = ((255, 112, 16), (206, 250, 40), (246, 60, 196), (60, 246, 190))


def car(brush: Brush, rng: np.random.Generator) -> None:
    body = lacquer(rng)
    oncoming = rng.uniform() < 0.5
    for side in (-1, 1):
        brush.box((*TIRE, CAR), side * 0.3, 0, side * 0.5, 0.2)
    brush.shape(
        (*body, CAR),
        (-0.56, 0.08), (-0.56, 0.34), (-0.48, 0.43), (0.48, 0.43), (0.56, 0.34), (0.56, 0.08),
    )  # fmt: skip
    brush.shape((*body, CAR), (-0.45, 0.42), (-0.32, 0.74), (0.32, 0.74), (0.45, 0.42))
    brush.shape((*GLASS, CAR), (-0.37, 0.44), (-0.28, 0.68), (0.28, 0.68), (0.37, 0.44))
    brush.box((*shade(body, 0.5), CAR), -0.54, 0.08, 0.54, 0.15)
    for side in (-1, 1):
        brush.box((*(HEADLIGHT if oncoming else RED), CAR), side * 0.36, 0.25, side * 0.51, 0.34)
    brush.box((*(TIRE if oncoming else WHITE), CAR), -0.14, 0.18, 0.14, 0.25)


def truck(brush: Brush, rng: np.random.Generator) -> None:
    cab = vivid(rng)
    load = WHITE if rng.uniform() < 0.5 else shade(vivid(rng), 1.15)
    for x in (-0.62, 0.05, 0.5):
        brush.disc((*TIRE, TRUCK), x, 0.16, 0.16)
    brush.box((*TIRE, TRUCK), -0.8, 0.14, 0.75, 0.28)
    brush.box((*load, TRUCK), -0.42, 0.26, 0.8, 1.62)
    brush.box((*shade(load, 0.82), TRUCK), -0.42, 0.26, 0.8, 0.36)
    brush.box((*cab, TRUCK), -0.84, 0.18, -0.44, 1.16)
    brush.box((*GLASS, TRUCK), -0.78, 0.68, -0.5, 1.04)
    brush.box((*HEADLIGHT, TRUCK), -0.84, 0.28, -0.74, 0.38)
    brush.box((*RED, TRUCK), 0.7, 0.28, 0.8, 0.4)


def bus(brush: Brush, rng: np.random.Generator) -> None:
    body = pick(rng, ((250, 190, 20), (226, 44, 36), (30, 120, 214), (36, 160, 84)))
    for side in (-1, 1):
        brush.box((*TIRE, BUS), side * 0.4, 0, side * 0.66, 0.2)
    brush.box((*body, BUS), -0.74, 0.1, 0.74, 1.56)
    brush.box((*shade(body, 1.2), BUS), -0.74, 1.46, 0.74, 1.56)
    brush.box((*TIRE, BUS), -0.4, 1.3, 0.4, 1.42)  # the destination board
    for pane in range(4):
        brush.box((*GLASS, BUS), -0.68 + 0.345 * pane, 0.72, -0.37 + 0.345 * pane, 1.24)
    brush.box((*WHITE, BUS), -0.74, 0.5, 0.74, 0.58)
    for side in (-1, 1):
        brush.box((*HEADLIGHT, BUS), side * 0.5, 0.24, side * 0.68, 0.36)


def person(brush: Brush, rng: np.random.Generator) -> None:
    coat, trousers = shade(vivid(rng), 0.75), shade(vivid(rng), 0.35)
    for side in (-1, 1):
        brush.box((*trousers, PERSON), side * 0.02, 0, side * 0.12, 0.5)
    brush.oval((*coat, PERSON), -0.19, 0.4, 0.19, 0.92)
    brush.box((*coat, PERSON), -0.13, 0.46, 0.13, 0.78)
    for side in (-1, 1):
        brush.box((*shade(coat, 0.75), PERSON), side * 0.15, 0.44, side * 0.2, 0.78)
    brush.disc((*shade(vivid(rng), 0.3), PERSON), 0, 1.01, 0.1)  # hair
    brush.oval((*pick(rng, SKIN), PERSON), -0.08, 0.88, 0.08, 1.04)


def rider(brush: Brush, rng: np.random.Generator) -> None:
    """A person on a motorcycle or a bicycle; the vehicle has its own label."""
    vehicle = motorcycle if rng.uniform() < 0.5 else bicycle
    vehicle(brush, rng)
    suit = pick(rng, SUITS)
    brush.shape((*shade(suit, 0.8), RIDER), (-0.24, 0.6), (0.1, 0.64), (0.22, 0.2), (0.04, 0.14))
    brush.shape(
        (*suit, RIDER),
        (-0.28, 0.5), (-0.26, 0.84), (-0.08, 1.1), (0.12, 1.06), (0.2, 0.84), (0.12, 0.5),
    )  # fmt: skip
    brush.shape((*shade(suit, 0.75), RIDER), (0.04, 0.98), (0.38, 0.7), (0.34, 0.58), (-0.02, 0.78))
    brush.disc((*pick(rng, SUITS), RIDER), 0.05, 1.2, 0.14)  # the helmet
    brush.oval((*GLASS, RIDER), 0.06, 1.15, 0.19, 1.25)  # its visor


def bicycle(brush: Brush, rng: np.random.Generator) -> None:
    frame = vivid(rng)
    for x in (-0.36, 0.36):
        brush.disc((*TIRE, BICYCLE), x, 0.25, 0.25)
        brush.disc((150, 154, 158, BICYCLE), x, 0.25, 0.19)  # spokes; the label covers the wheel
    brush.shape((*frame, BICYCLE), (-0.38, 0.22), (-0.16, 0.54), (-0.08, 0.5), (-0.3, 0.2))
    brush.shape((*frame, BICYCLE), (-0.2, 0.52), (0.26, 0.58), (0.02, 0.2), (-0.06, 0.22))
    brush.shape((*frame, BICYCLE), (0.2, 0.66), (0.28, 0.66), (0.42, 0.26), (0.34, 0.22))
    brush.box((*TIRE, BICYCLE), -0.26, 0.56, -0.06, 0.63)
    brush.box((*TIRE, BICYCLE), 0.18, 0.64, 0.36, 0.7)


def motorcycle(brush: Brush, rng: np.random.Generator) -> None:
    body = vivid(rng)
    for x in (-0.38, 0.38):
        brush.disc((*TIRE, MOTORCYCLE), x, 0.22, 0.22)
        brush.disc((130, 134, 138, MOTORCYCLE), x, 0.22, 0.1)
    brush.shape(
        (*body, MOTORCYCLE),
        (-0.5, 0.4), (-0.3, 0.54), (0.22, 0.6), (0.36, 0.66), (0.34, 0.34), (0.12, 0.16),
        (-0.2, 0.16),
    )  # fmt: skip
    brush.box((*STEEL, MOTORCYCLE), -0.14, 0.12, 0.16, 0.3)
    brush.box((*TIRE, MOTORCYCLE), -0.4, 0.52, 0.04, 0.6)
    brush.shape((*TIRE, MOTORCYCLE), (0.24, 0.62), (0.32, 0.78), (0.38, 0.78), (0.36, 0.6))
    brush.disc((*HEADLIGHT, MOTORCYCLE), 0.4, 0.56, 0.07)


def lamp_post(brush: Brush, rng: np.random.Generator) -> None:
    top = rng.uniform(2.2, 3.2)
    brush.post((*STEEL, POLE), 0, top, 0.06)
    brush.box((*STEEL, POLE), 0, top - 0.06, 0.45, top)
    brush.box((*HEADLIGHT, POLE), 0.34, top - 0.1, 0.54, top - 0.04)


def traffic_light(brush: Brush, rng: np.random.Generator) -> None:
    foot = rng.uniform(1.1, 1.5)
    brush.post((*STEEL, POLE), 0, foot + 0.3, 0.06)
    brush.box((24, 26, 26, TRAFFIC_LIGHT), -0.14, foot, 0.14, foot + 0.72)
    lit = int(rng.integers(3))
    lamps: tuple[Color, ...] = ((20, 236, 110), (255, 196, 20), (255, 36, 30))
    for lamp, color in enumerate(lamps):
        glow = color if lamp == lit else shade(color, 0.3)
        brush.disc((*glow, TRAFFIC_LIGHT), 0, foot + 0.14 + 0.22 * lamp, 0.09)


def traffic_sign(brush: Brush, rng: np.random.Generator) -> None:
    y = rng.uniform(1.35, 1.75)
    brush.post((*STEEL, POLE), 0, y, 0.055)
    kind = int(rng.integers(3))
    if kind == 0:
        brush.disc((*RED, TRAFFIC_SIGN), 0, y, 0.22)
        brush.disc((*WHITE, TRAFFIC_SIGN), 0, y, 0.13)
    elif kind == 1:
        brush.box((24, 84, 222, TRAFFIC_SIGN), -0.2, y - 0.2, 0.2, y + 0.2)
        brush.box((*WHITE, TRAFFIC_SIGN), -0.09, y - 0.09, 0.09, y + 0.09)
    else:
        brush.shape((*RED, TRAFFIC_SIGN), (-0.26, y + 0.2), (0.26, y + 0.2), (0, y - 0.25))
        brush.shape(
            (250, 210, 60, TRAFFIC_SIGN), (-0.16, y + 0.14), (0.16, y + 0.14), (0, y - 0.13)
        )


def tree(brush: Brush, rng: np.random.Generator) -> None:
    leaf = foliage(rng)
    foot = rng.uniform(0.8, 1.2)
    brush.post((96, 66, 44, VEGETATION), 0, foot + 0.4, 0.14)
    for _ in range(5):
        x, y = rng.uniform(-0.4, 0.4), foot + rng.uniform(0.25, 0.95)
        color = shade(leaf, rng.uniform(0.85, 1.1))
        brush.disc((*color, VEGETATION), x, y, rng.uniform(0.38, 0.58))


def building(
    view: Perspective, rng: np.random.Generator, lateral: float, near: float, far: float
) -> None:
    color = pick(rng, FACADES)
    top = rng.uniform(2.2, 4.6)
    outer = lateral + np.sign(lateral) * rng.uniform(1.5, 4)
    front = (*shade(color, 1.08), BUILDING)
    corners = ((lateral, 0), (lateral, top), (outer, top), (outer, 0))
    view.draw.polygon([view.point(x, y, near) for x, y in corners], fill=front)
    paint = (*shade(color, 0.86), BUILDING)
    view.panel(paint, lateral, near=near, far=far, bottom=0, top=top)


def wall(
    view: Perspective, rng: np.random.Generator, lateral: float, near: float, far: float
) -> None:
    color = pick(rng, ((168, 104, 86), (158, 122, 104), (178, 132, 116)))
    top = rng.uniform(0.85, 1.3)
    view.panel((*color, WALL), lateral, near=near, far=far, bottom=0, top=top)
    cap = (*shade(color, 0.75), WALL)
    view.panel(cap, lateral, near=near, far=far, bottom=top - 0.07, top=top)


def fence(
    view: Perspective, rng: np.random.Generator, lateral: float, near: float, far: float
) -> None:
    color = pick(rng, ((138, 156, 178), (150, 160, 164), (126, 144, 156)))
    top = rng.uniform(0.9, 1.3)
    view.panel((*color, FENCE), lateral, near=near, far=far, bottom=0, top=top)
    rail = (*shade(color, 0.7), FENCE)
    view.panel(rail, lateral, near=near, far=far, bottom=top - 0.06, top=top)


def hedge(
    view: Perspective, rng: np.random.Generator, lateral: float, near: float, far: float
) -> None:
    """A row of bushes or of close trees."""
    color = foliage(rng)
    top = rng.uniform(1.2, 2.6)
    for nearness in np.linspace(far, near, 7):
        x, ground = view.point(lateral, 0, float(nearness))
        unit = view.ground * float(nearness)
        bush = Brush(view.draw, x=x, ground=ground, unit=unit)
        paint = (*shade(color, rng.uniform(0.88, 1.08)), VEGETATION)
        radius = rng.uniform(0.35, 0.5)
        bush.oval(paint, -radius, -0.05, radius, top * rng.uniform(0.85, 1.0))
    paint = (*color, VEGETATION)
    view.panel(paint, lateral, near=near, far=far, bottom=0, top=0.75 * top)


def train(view: Perspective, rng: np.random.Generator, lateral: float) -> None:
    """A tram along one side, with its front toward the camera."""
    color = pick(rng, ((196, 40, 48), (36, 60, 150), (226, 222, 214)))
    far = rng.uniform(0.1, 0.25)
    near = far * rng.uniform(1.8, 4.5)
    paint = (*color, TRAIN)
    pale = (*(WHITE if color[0] < 220 else (206, 44, 44)), TRAIN)
    glass = (*GLASS, TRAIN)
    view.panel(paint, lateral, near=near, far=far, bottom=0.05, top=1.55)
    view.panel(pale, lateral, near=near, far=far, bottom=0.42, top=0.58)
    view.panel(glass, lateral, near=near, far=far, bottom=0.78, top=1.24)
    view.panel(pale, lateral, near=near, far=far, bottom=1.42, top=1.55)
    x, ground = view.point(lateral, 0, near)
    front = Brush(view.draw, x=x, ground=ground, unit=view.ground * near, mirror=lateral < 0)
    front.box((*shade(color, 0.85), TRAIN), 0, 0.05, 0.8, 1.55)
    front.box(glass, 0.1, 0.75, 0.7, 1.3)
    front.box((*HEADLIGHT, TRAIN), 0.08, 0.3, 0.22, 0.42)
    front.box((*HEADLIGHT, TRAIN), 0.58, 0.3, 0.72, 0.42)
