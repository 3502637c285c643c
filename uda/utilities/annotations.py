"""What an annotation allows: whether a value fits it, and how a message says so."""

from collections.abc import Callable, Mapping
from types import NoneType, UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

_INT_LIMIT = 2**63  # what torch and numpy count with
_LARGEST = 1e30  # also ten times of it is a number in float32, which networks compute with


class Kind(NamedTuple):
    """The values of one type that a reader takes, and what a message calls them."""

    words: str
    fits: Callable[[Any], bool]


Kinds = Mapping[Any, Kind]  # by type; one for `dict`, `list` or `tuple` takes any items


def instances(words: str, cls: type) -> Kind:
    """The instances of `cls`, which messages call `words`."""
    return Kind(words, lambda value: isinstance(value, cls))


def whole(words: str, *, lowest: int) -> Kind:
    """The whole numbers of 64 bits from `lowest` on."""
    return Kind(words, lambda value: type(value) is int and lowest <= value < _INT_LIMIT)


def _is_finite(value: Any) -> bool:
    # A whole number that float() would refuse is compared, not converted.
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -_LARGEST <= value <= _LARGEST


OF_SETTINGS: Kinds = {
    NoneType: instances("none", NoneType),
    bool: instances("true or false", bool),
    int: whole("a whole number", lowest=1 - _INT_LIMIT),
    float: Kind("a finite number (up to 1e30)", _is_finite),
    str: instances("text", str),
}


def options_of(annotation: Any) -> tuple[Any, ...]:
    """The members of a union; of anything else, itself."""
    union = get_origin(annotation) in (Union, UnionType)
    return get_args(annotation) if union else (annotation,)


def matches(value: Any, annotation: Any, kinds: Kinds = OF_SETTINGS) -> bool:
    """Whether `value` fits a union, a Literal, a dict, a tuple, one of `kinds` or a class."""
    origin, items = get_origin(annotation), get_args(annotation)
    kind = kinds.get(origin or annotation)
    if kind is not None:
        return kind.fits(value)
    if origin in (Union, UnionType):
        return any(matches(value, option, kinds) for option in items)
    if origin is Literal:
        return any(value == allowed and type(value) is type(allowed) for allowed in items)
    if origin is dict:
        return isinstance(value, dict) and all(
            matches(key, items[0], kinds) and matches(member, items[1], kinds)
            for key, member in value.items()
        )
    if origin is tuple:
        if not isinstance(value, tuple):
            return False
        if _is_repeated(items):
            return all(matches(item, items[0], kinds) for item in value)
        pairs = zip(value, items, strict=False)
        return len(value) == len(items) and all(matches(*pair, kinds) for pair in pairs)
    return isinstance(annotation, type) and isinstance(value, annotation)


def spell(annotation: Any, kinds: Kinds = OF_SETTINGS) -> str:
    """What `annotation` allows, in words."""
    origin, items = get_origin(annotation), get_args(annotation)
    kind = kinds.get(origin or annotation)
    if kind is not None:
        return kind.words
    if origin in (Union, UnionType):
        return " or ".join(spell(option, kinds) for option in items)
    if origin is Literal:
        return "one of " + ", ".join(map(str, items))
    if origin is dict:
        return f"names, each with a {spell(items[1], kinds)}"
    if origin is tuple:
        if _is_repeated(items):
            return f"any number of {spell(items[0], kinds)}, separated by commas"
        spelled = ", ".join(spell(item, kinds) for item in items)
        return f"{len(items)} values, separated by commas: {spelled}"
    return str(getattr(annotation, "__name__", annotation))


def _is_repeated(items: tuple[Any, ...]) -> bool:
    return len(items) == 2 and items[1] is Ellipsis
