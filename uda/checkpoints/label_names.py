"""Label spaces by the names of their classes, as files of other projects list them."""

import colorsys
from collections.abc import Sequence

from uda.data.registry import LABEL_SPACES
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import require, shown

_SHOWN = 4  # differences in a message
_NAME = "classes_of_the_file"


def label_space_named(names: Sequence[str], *, file: str) -> tuple[LabelSpace, str]:
    """The label space with classes of these names in this order, and what is said of it: one of
    ours, or a new one whose raw ids are the places in the list.

    Raises InputError when the names are nearly those of a label space of ours: as many, half of
    them the same. Which differ is said.
    """
    ours = list(LABEL_SPACES.values())
    spelled = [_spelled(name) for name in names]
    for space in ours:
        if spelled == [_spelled(name) for name in space.classes]:
            return space, f"those of {space.name}"
    for space in ours:
        own = [_spelled(name) for name in space.classes]
        pairs = list(zip(range(len(own)), names, space.classes, strict=False))
        others = [(i, a, b) for i, a, b in pairs if _spelled(a) != _spelled(b)]
        words = ", ".join(f"{i} is {shown(a)} instead of {b!r}" for i, a, b in others[:_SHOWN])
        more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
        require(
            len(own) != len(names) or len(set(own) & set(spelled)) * 2 < len(own),
            f"{file}: its classes are nearly those of {space.name}, but {words}{more}: if it is "
            "only the spelling, correct id2label; if it is the order, no label file of ours fits",
        )
    return _own_space(names), f"{len(names)} of its own: " + ", ".join(names[:_SHOWN]) + ", ..."


def _spelled(name: str) -> str:
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def _own_space(names: Sequence[str]) -> LabelSpace:
    """A label space of these classes; colors are spread over hues."""
    hues = ((number * 0.618034) % 1 for number in range(len(names)))
    colors = [colorsys.hsv_to_rgb(hue, 0.75, 0.9) for hue in hues]
    return LabelSpace(
        name=_NAME,
        classes=tuple(names),
        report_names=tuple(names),
        palette=tuple((int(255 * r), int(255 * g), int(255 * b)) for r, g, b in colors),
        raw_to_train={number: number for number in range(len(names))}
        | {IGNORE_INDEX: IGNORE_INDEX},
    )
