"""The label space that the classes of a data set's TOML file define."""

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, NotRequired, TypedDict, get_type_hints

from uda.data.described.mapping import read_mapping
from uda.data.polygons import SUFFIX
from uda.labels.spaces import CHANNELS, IGNORE_INDEX, UNLABELED, LabelSpace
from uda.labels.zero_label import reduce_zero_label
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown

Color = tuple[int, int, int]

_GOLDEN = 0.618034  # of a turn: the golden ratio spreads hues evenly for any number of classes


class Class(TypedDict):
    """One entry of `[[classes]]`."""

    name: str
    value: NotRequired[int]
    values: NotRequired[list[int]]
    color: NotRequired[list[int]]
    colors: NotRequired[list[list[int]]]
    polygons: NotRequired[list[str]]
    scored: NotRequired[bool]


class Codes(NamedTuple):
    """What label files store, and which train id each raw id means: fields of `LabelSpace`."""

    raw_to_train: Mapping[int, int]
    raw_colors: tuple[Color, ...] = ()
    raw_values: tuple[tuple[int, int], ...] = ()
    raw_names: Mapping[str, int] = MappingProxyType({})


def label_space_of(
    values: Mapping[str, Any], *, name: str, origin: str, mapping: Path | None = None
) -> LabelSpace:
    """The label space of a file's `values`, whose types have been checked; `mapping`: where the
    values or colors of its classes are, if they are in a file of their own.

    Raises InputError, naming `origin` and the key, when classes contradict each other.
    """
    _check_entries(values["classes"], origin)
    entries: Sequence[Mapping[str, Any]] = values["classes"]
    names = tuple(entry["name"] for entry in entries)
    unscored = tuple(i for i, entry in enumerate(entries) if not entry.get("scored", True))
    require(
        len(unscored) < len(names),
        f"{origin}: no class is scored; set scored = true for at least one",
    )
    codes = _codes(values, origin, mapping)
    require(
        bool({*codes.raw_to_train.values()} - {IGNORE_INDEX}),
        f"{origin}: no class has a value or color",
    )
    channel = values.get("label_channel", "")
    require(
        not channel or (channel in CHANNELS and not codes.raw_colors and not codes.raw_names),
        f"{origin}: label_channel is {shown(channel)}; allowed: {', '.join(CHANNELS)}, for label "
        "files of colors whose classes have values",
    )
    space = LabelSpace(
        name=name,
        classes=names,
        report_names=names,
        palette=tuple(_palette(entries, origin)),
        raw_to_train=codes.raw_to_train,
        mirror_swaps=_swaps(values.get("mirror_swaps", []), names, origin),
        unscored=unscored,
        raw_colors=codes.raw_colors,
        raw_channel=channel,
        raw_values=codes.raw_values,
        raw_names=dict(codes.raw_names),
    )
    if not values.get("reduce_zero_label", False):
        return space
    _check_zero(entries[0], origin)
    try:
        return reduce_zero_label(space, name=name)
    except InputError as error:
        raise InputError(f"{origin}: reduce_zero_label: {error}") from None


def _check_entries(entries: Sequence[Mapping[str, Any]], origin: str) -> None:
    require(
        0 < len(entries) < IGNORE_INDEX,
        f"{origin}: classes has {len(entries)} entries; allowed: 1 to {IGNORE_INDEX - 1}, as "
        "predictions have 8 bits and 255 is no class: give several values to one class",
    )
    known, names = get_type_hints(Class), set()
    for number, entry in enumerate(entries):
        where = f"{origin}: classes.{number}"
        odd = next((key for key in entry if key not in known), None)
        if odd is not None:
            raise InputError(f"{where} has no key {shown(odd)}; {suggest(odd, known)}")
        name = entry["name"]
        fine = 0 < len(name) <= 100 and name.isprintable() and name == name.strip()
        require(fine, f"{where}.name is {shown(name)}; allowed: a name of up to 100 characters")
        require(name not in names, f"{origin}: two classes are called {shown(name)}: rename one")
        names.add(name)
        for one, several in (("value", "values"), ("color", "colors")):
            require(
                not (one in entry and several in entry),
                f"{where} ({name}) has {one} and {several}: give one of them",
            )


def _check_zero(entry: Mapping[str, Any], origin: str) -> None:
    """mmsegmentation's option of this name removes the value 0; here it also removes its class."""
    require(
        entry.get("value") == 0 or entry.get("values") == [0],
        f"{origin}: reduce_zero_label removes the first class, whose only value must be 0, but "
        f"{entry['name']} has another: remove reduce_zero_label",
    )


def _codes(values: Mapping[str, Any], origin: str, mapping: Path | None) -> Codes:
    entries = values["classes"]
    if mapping is not None:
        own = [e["name"] for e in entries if {"value", "values", "colors", "polygons"} & e.keys()]
        require(
            not own and "ignore" not in values and "ignore_colors" not in values,
            f"{origin}: mapping says which value means what: omit ignore and the classes' values",
        )
        found = read_mapping(mapping, [entry["name"] for entry in entries])
        by_number = {code: train_id for code, train_id in found.items() if isinstance(code, int)}
        if by_number:
            return _of_values(by_number)
        colors = tuple(code for code in found if not isinstance(code, int))
        require(len(colors) < IGNORE_INDEX, f"{origin}: {len(colors)} colors; allowed: up to 254")
        return Codes(dict(enumerate(found.values())), colors)
    if any(text.endswith(SUFFIX) for text in _label_patterns(values)):
        return _codes_by_name(values, origin)
    require(
        not any("polygons" in entry for entry in entries) and "ignore_polygons" not in values,
        f"{origin}: polygons are for label files whose names end in {SUFFIX}: see labels",
    )
    if any("value" in entry or "values" in entry for entry in entries):
        return _of_values(_codes_by_value(values, origin))
    raw, colors = _codes_by_color(values, origin)
    return Codes(raw, colors)


def _label_patterns(values: Mapping[str, Any]) -> list[str]:
    """The patterns of all label files."""
    splits = values.get("splits", {})
    of_splits = splits.values() if isinstance(splits, dict) else ()
    return [own["labels"] for own in (values, *of_splits) if "labels" in own]


def _of_values(raw: Mapping[int, int]) -> Codes:
    """Raw ids are values; above 8 bits they stand for train ids."""
    if max(raw, default=0) <= 255:
        return Codes(dict(raw))
    return Codes({t: t for t in raw.values()}, raw_values=tuple(raw.items()))


def _codes_by_name(values: Mapping[str, Any], origin: str) -> Codes:
    """Raw ids are train ids, of the names of polygons."""
    require(
        "ignore" not in values and "ignore_colors" not in values,
        f"{origin}: ignore is for values, but label files have polygons: give ignore_polygons",
    )
    found: dict[str, str] = {}
    raw_names = {UNLABELED: IGNORE_INDEX}
    for train_id, entry in enumerate(values["classes"]):
        require(
            not {"value", "values", "colors"} & entry.keys(),
            f"{origin}: class {entry['name']} has values or colors, label files have polygons: "
            "give polygons = [...], the names in them (default: the name of the class)",
        )
        for name in entry.get("polygons", [entry["name"]]):
            _take(found, name, f"class {entry['name']}", origin)
            raw_names[name] = train_id
    for name in values.get("ignore_polygons", []):
        _take(found, name, "ignore_polygons", origin)
        raw_names[name] = IGNORE_INDEX
    return Codes({t: t for t in raw_names.values()}, raw_names=raw_names)


def _codes_by_value(values: Mapping[str, Any], origin: str) -> dict[int, int]:
    """The train id of each value in label files."""
    require(
        "ignore_colors" not in values,
        f"{origin}: ignore_colors is for label files of colors, but classes have a value: give "
        "ignore = [...]",
    )
    found: dict[int, str] = {}
    raw: dict[int, int] = {}
    for train_id, entry in enumerate(values["classes"]):
        name = f"class {entry['name']}"
        require("colors" not in entry, f"{origin}: {name} has colors and others a value: choose")
        own = [entry["value"]] if "value" in entry else entry.get("values", [])
        none = entry.get("values") == []  # it has no pixel, and says so
        require(
            bool(own) or none,
            f"{origin}: {name} has no value, as others have; write values = [] if no label file "
            "has its pixels",
        )
        for value in own:
            _take(found, value, name, origin)
            raw[value] = train_id
    for value in values.get("ignore", []):
        _take(found, value, "ignore", origin)
        raw[value] = IGNORE_INDEX
    return raw


def _codes_by_color(
    values: Mapping[str, Any], origin: str
) -> tuple[dict[int, int], tuple[Color, ...]]:
    """Raw ids are the places in a list of the colors of label files, which comes second."""
    require(
        "ignore" not in values,
        f"{origin}: ignore is for values, but no class has one: give ignore_colors = [[0, 0, 0]]",
    )
    found: dict[Color, str] = {}
    train_ids = []
    for train_id, entry in enumerate(values["classes"]):
        name = f"class {entry['name']}"
        own = [entry["color"]] if "color" in entry else entry.get("colors", [])
        none = entry.get("colors") == []
        require(
            bool(own) or none,
            f"{origin}: {name} has neither value nor color; give one, or colors = [] if no label "
            "file has its pixels",
        )
        for color in own:
            _take(found, _color(color, name, origin), name, origin)
            train_ids.append(train_id)
    for color in values.get("ignore_colors", []):
        _take(found, _color(color, "ignore_colors", origin), "ignore_colors", origin)
        train_ids.append(IGNORE_INDEX)
    require(len(found) < IGNORE_INDEX, f"{origin}: {len(found)} colors; allowed: up to 254")
    return dict(enumerate(train_ids)), tuple(found)


def _take(found: dict[Any, str], code: int | Color | str, name: str, origin: str) -> None:
    """Notes that `code` belongs to `name`; InputError when it is another's or invalid."""
    fine = not isinstance(code, int) or 0 <= code <= 65535
    require(fine, f"{origin}: {name} has the value {shown(code)}; allowed: 0 to 65535")
    kind = {int: "value", str: "polygon"}.get(type(code), "color")
    require(
        code not in found, f"{origin}: {kind} {code} is of {found.get(code)} and of {name}: choose"
    )
    found[code] = name


def _color(given: Sequence[int], name: str, origin: str) -> Color:
    fine = len(given) == 3 and all(0 <= channel < 256 for channel in given)
    require(fine, f"{origin}: {name} has the color {shown(given)}; allowed: [R, G, B], 0 to 255")
    red, green, blue = given
    return red, green, blue


def _palette(entries: Sequence[Mapping[str, Any]], origin: str) -> Iterator[Color]:
    """The color of each class in pictures: its own, or one that differs from its neighbors'."""
    for number, entry in enumerate(entries):
        own = entry.get("color") or next(iter(entry.get("colors", [])), None)
        if own is not None:
            yield _color(own, f"class {entry['name']}", origin)
            continue
        red, green, blue = colorsys.hsv_to_rgb(number * _GOLDEN % 1, 0.75, 1 - number % 3 * 0.2)
        yield round(255 * red), round(255 * green), round(255 * blue)


def _swaps(
    pairs: Sequence[Sequence[str]], names: tuple[str, ...], origin: str
) -> tuple[tuple[int, int], ...]:
    """Train ids of classes that are exchanged when an image is mirrored."""
    used: set[str] = set()
    for pair in pairs:
        where = f"{origin}: mirror_swaps {shown(list(pair))}"
        require(len(set(pair)) == len(pair) == 2, f"{where}: allowed: pairs of two classes")
        for name in pair:
            require(name in names, f"{where}: there is no class {shown(name)}; "
                    f"{suggest(name, names)}")  # fmt: skip
            require(name not in used, f"{where}: {shown(name)} is in another pair, too")
            used.add(name)
    return tuple((names.index(left), names.index(right)) for left, right in pairs)
