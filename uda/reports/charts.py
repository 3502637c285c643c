"""Line charts as the numbers of an SVG; templates/charts.html draws them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Series = Sequence[tuple[float, float]]  # (step, value), in the order of steps

WIDTH, HEIGHT = 640, 220  # of the plot, in units of the SVG
_POINTS = 300  # of a line: more than a screen shows
_LINES = 6  # of a chart: as many as there are colors


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a chart."""

    name: str
    points: str  # of a polyline
    first: float
    lowest: float
    highest: float
    last: float


@dataclass(frozen=True, slots=True)
class Chart:
    """One chart: its lines, and its axes as (place, number) of each tick."""

    title: str
    lines: tuple[Line, ...]
    across: tuple[tuple[float, str], ...]  # steps
    up: tuple[tuple[float, str], ...]
    marks: tuple[float, ...]  # places of warnings
    averaged: int  # how many records a point is the mean of, at most

    @property
    def words(self) -> str:
        """What a reader who does not see it has to know."""
        said = (
            f"{line.name} from {line.first:.4g} to {line.last:.4g}, lowest {line.lowest:.4g}, "
            f"highest {line.highest:.4g}"
            for line in self.lines
        )
        return f"{self.title}: {'; '.join(said)}"


def line_charts(
    title: str, lines: Mapping[str, Series], *, marks: Sequence[float] = ()
) -> list[Chart]:
    """Charts of `lines` by name, as many as there is need of; `marks`: steps to be marked.

    Where a line has more values than a chart has points, each point is a mean of neighbors.
    """
    drawn = [(name, line) for name, line in lines.items() if line]
    return [
        _chart(title if not first else f"{title}, continued", drawn[first : first + _LINES], marks)
        for first in range(0, len(drawn), _LINES)
    ]


def _chart(title: str, lines: Sequence[tuple[str, Series]], marks: Sequence[float]) -> Chart:
    fewer = [(name, series, _fewer(series)) for name, series in lines]
    steps = [step for _, _, series in fewer for step, _ in series]
    values = [value for _, _, series in fewer for _, value in series]
    across, up = _ticks(min(steps), max(steps)), _ticks(min(values), max(values))
    left, right = min(steps), max(steps)
    low, high = min(up[0], *values), max(up[-1], *values)

    def x(step: float) -> float:
        return round(WIDTH * (step - left) / (right - left), 2) if right > left else WIDTH / 2

    def y(value: float) -> float:
        return round(HEIGHT * (high - value) / (high - low), 2) if high > low else HEIGHT / 2

    return Chart(
        title=title,
        lines=tuple(
            Line(
                name=name,
                points=" ".join(f"{x(step):g},{y(value):g}" for step, value in points),
                first=series[0][1],
                lowest=min(value for _, value in series),
                highest=max(value for _, value in series),
                last=series[-1][1],
            )
            for name, series, points in fewer
        ),
        across=tuple((x(tick), f"{tick:g}") for tick in across if left <= tick <= right),
        up=tuple((y(tick), f"{tick:.4g}") for tick in up),
        marks=tuple(x(step) for step in marks if left <= step <= right),
        averaged=max(math.ceil(len(series) / len(points)) for _, series, points in fewer),
    )


def sparkline(series: Series, *, highest: float = 1.0) -> str:
    """The points of a line in a box of 100 x 20, from 0 at its bottom to `highest` at its top."""
    points = _fewer(series, 100)
    left, right = points[0][0], points[-1][0]
    width = right - left or 1
    shown = (
        (100 * (step - left) / width, 19 - 18 * min(max(value / (highest or 1), 0), 1))
        for step, value in points
    )
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in shown)


def _fewer(series: Series, most: int = _POINTS) -> list[tuple[float, float]]:
    """The series, or means of as many neighbors as leave up to `most` of them."""
    size = math.ceil(len(series) / most)
    groups = [series[first : first + size] for first in range(0, len(series), size)]
    return [
        (sum(step for step, _ in g) / len(g), sum(value for _, value in g) / len(g)) for g in groups
    ]


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers that span the range."""
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    unit = 10.0 ** math.floor(math.log10(span / 4))
    step = next((unit * f for f in (1, 2, 5, 10) if span / (unit * f) <= 6), unit * 10)
    first, last = math.floor(low / step), math.ceil(high / step)
    return [round(number * step, 12) for number in range(first, last + 1)]
