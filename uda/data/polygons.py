"""Label files that are not pictures: JSON files of polygons, as Cityscapes and IDD have them.

    {"imgHeight": 1024, "imgWidth": 2048,
     "objects": [{"label": "road", "polygon": [[0, 769], ...]}, ...]}

Polygons are drawn in the order of the file, so that later ones hide earlier ones.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw

from uda.data.files import MAX_PIXELS
from uda.labels.spaces import UNLABELED
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import LARGE, parsed_json, read_text, why

SUFFIX = ".json"
_GROUP = "group"  # "cargroup": cars that cannot be told apart
_FARTHEST = 2**20  # pixels; points may lie outside of the image, not anywhere
_MOST_WORK = 2**30  # a few seconds; a street scene takes a thousandth


class Polygon(NamedTuple):
    """An object and its outline."""

    label: str
    points: tuple[tuple[float, float], ...]  # (x, y) in pixels from the upper left


class Outlines(NamedTuple):
    """What a file says."""

    size: tuple[int, int]  # (height, width)
    polygons: tuple[Polygon, ...]  # in the order of the file; deleted ones are not among them


def read_outlines(path: Path) -> Outlines:
    """The polygons in a file; InputError, naming the file, when it is damaged, has another form or
    would take too long to draw."""
    content = _content(path)
    size = (_side(content, "imgHeight", path), _side(content, "imgWidth", path))
    require(
        size[0] * size[1] <= MAX_PIXELS,
        f"{path}: an image of {size[1]}x{size[0]} is larger than can be read: replace the file",
    )
    objects = content.get("objects")
    require(isinstance(objects, list), f"{path} has no list of objects: replace the file")
    assert isinstance(objects, list)
    found = [_polygon(each, path) for each in objects]
    polygons = tuple(polygon for polygon in found if polygon is not None)
    work = sum(_work(polygon, size) for polygon in polygons)
    require(work <= _MOST_WORK, f"{path} has too many polygons to draw: replace the file")
    return Outlines(size, polygons)


def draw_labels(path: Path, ids: Mapping[str, int]) -> Image.Image:
    """The polygons in a file as an 8-bit gray picture of the raw ids of their names.

    Raises InputError, naming the file, for a name that `ids` lacks and as `read_outlines` does.
    """
    size, polygons = read_outlines(path)
    picture = Image.new("L", (size[1], size[0]), ids[UNLABELED])
    draw = ImageDraw.Draw(picture)
    for label, points in polygons:
        name = label if label in ids else label.removesuffix(_GROUP)
        if name not in ids:
            raise InputError(
                f"{path}: a polygon is called {shown(label)}, which is no class and not ignored; "
                f"{suggest(label, ids)}"
            )
        if len(points) > 1:  # a point has no area
            draw.polygon(points, fill=ids[name])
    return picture


def _content(path: Path) -> dict[str, Any]:
    try:
        content = parsed_json(read_text(path, LARGE, "utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read as a JSON file of polygons ({why(error)}): replace the file"
        ) from None
    require(
        isinstance(content, dict),
        f"{path} is not a JSON file of polygons, which has imgHeight, imgWidth and objects: "
        "replace the file",
    )
    assert isinstance(content, dict)
    return content


def _side(content: dict[str, Any], key: str, path: Path) -> int:
    value = content.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_PIXELS:
        raise InputError(
            f"{path}: {key} is {shown(str(value))}; allowed: a number of pixels: replace the file"
        )
    return value


def _polygon(found: object, path: Path) -> Polygon | None:
    """The polygon of one object; None when it is deleted."""
    if isinstance(found, dict) and found.get("deleted"):
        return None
    label, points = (
        (found.get("label"), found.get("polygon")) if isinstance(found, dict) else (None, None)
    )
    if not isinstance(label, str) or not isinstance(points, list):
        raise InputError(f"{path}: an object has no label or no polygon: replace the file")
    for point in points:
        if not isinstance(point, list) or len(point) != 2 or not all(map(_is_near, point)):
            raise InputError(
                f"{path}: a polygon of {shown(label)} has the point {shown(str(point)[:200])}; "
                f"allowed: x and y, numbers of up to {_FARTHEST}: replace the file"
            )
    return Polygon(label, tuple((x, y) for x, y in points))


def _is_near(number: object) -> bool:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return is_number and abs(number) <= _FARTHEST  # type: ignore[arg-type]  # NaN is not


def _work(polygon: Polygon, size: tuple[int, int]) -> int:
    """About how many steps drawing takes: a row looks at each edge, and fills what it encloses."""
    if not polygon.points:
        return 0
    sides = []
    for axis, limit in ((1, size[0]), (0, size[1])):
        values = [point[axis] for point in polygon.points]
        sides.append(max(0, min(limit, max(values)) - max(0, min(values))) + 1)
    return int(sides[0] * len(polygon.points) + sides[0] * sides[1] / 8)
