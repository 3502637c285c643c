"""The classes of a draft, as lines of a TOML file."""

from collections.abc import Iterator

from uda.data.datasets.recognized import Recognized
from uda.data.drafts.classes import Color, Names, Seen, code_of
from uda.data.drafts.splits import quoted
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

_HIGHEST_GUESS = 250  # values from here on are probably not classes, most often 255


def ignored_lines(seen: Seen, known: Recognized | None) -> list[str]:
    """The keys that say what is not a class."""
    if seen.channel:
        return [
            f"label_channel = {quoted(seen.channel)}  # of 16 bits per channel",
            *_ignore(seen, known),
        ]
    if seen.values:
        return _ignore(seen, known)
    black = skips_black(seen)
    return ["ignore_colors = [[0, 0, 0]]  # guessed: black is usually not a class"] if black else []


def _ignore(seen: Seen, known: Recognized | None) -> list[str]:
    ignored = ignored_values(seen, known)
    if known is not None:
        return [f"ignore = {ignored}  # of {known.name}"] if ignored else []
    if not ignored and (255 in seen.values or seen.small):
        return []  # masks of 0 and 255, or of few bits
    found = "guessed: so high a value is most often no class" if ignored else "none was found"
    return [f"ignore = {ignored or [255]}  # {found}"]


def ignored_values(seen: Seen, known: Recognized | None) -> list[int]:
    """The values that are taken for no class; none where masks are of 0 and 255, say."""
    if known is not None:
        of_space = known.space.raw_to_train if known.space is not None else {}
        none = {value for value, train_id in of_space.items() if train_id == IGNORE_INDEX}
        return sorted(none | set(known.ignored))
    high = sorted(value for value in seen.values if _HIGHEST_GUESS <= value < 256)
    return high if len(seen.values) - len(high) > 1 else []


def skips_black(seen: Seen) -> bool:
    """Whether black is taken for no class: not where masks are black and white."""
    return (0, 0, 0) in seen.colors and len(seen.colors) > 2


def class_lines(seen: Seen, names: Names, known: Recognized | None) -> Iterator[str]:
    """An entry for each value or color, in ascending order or that of the list of names."""
    if known is not None and known.space is not None:
        yield from _of_space(seen, known.space)
        return
    ignored = ignored_values(seen, known)
    for value in sorted(set(seen.values) | set(names.of_value)):
        if value in ignored:
            continue
        yield from ("", "[[classes]]")
        yield f"name = {quoted(names.of_value.get(value, f'class_{value}'))}"
        yield f"value = {value}{_where(seen, value)}"
        if (value in seen.palette and value not in names.of_value) or value in seen.palette:
            yield f"color = {list(seen.palette[value])}  # of the palette in the label files"
    for color in names.of_color or sorted(seen.colors):
        if color == (0, 0, 0) and skips_black(seen):
            continue
        yield from ("", "[[classes]]")
        yield f"name = {quoted(names.of_color.get(color, _color_name(color)))}"
        yield f"color = {list(color)}{_where(seen, code_of(color))}"


def _of_space(seen: Seen, space: LabelSpace) -> Iterator[str]:
    """The classes of a known data set."""
    values: dict[int, list[int]] = {}
    for value, train_id in space.raw_to_train.items():
        values.setdefault(train_id, []).append(value)
    for train_id, name in enumerate(space.classes):
        own = values.get(train_id, [])
        yield from ("", "[[classes]]", f"name = {quoted(name)}")
        yield f"value = {own[0]}{_where(seen, own[0])}" if len(own) == 1 else f"values = {own}"
        yield f"color = {list(space.palette[train_id])}"


def _where(seen: Seen, code: int) -> str:
    """How often a value or color occurs and where, as a comment."""
    return f"  # {seen.statistics.words(code) or 'not in the files read'}"


def _color_name(color: Color) -> str:
    return "class_" + "_".join(map(str, color))
