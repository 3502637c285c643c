"""Dataclass trees as plain values, as `a.b=c` overrides, and checked against their annotations."""

import dataclasses
import difflib
import typing
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType, NoneType
from typing import (
    Any,
    Literal,
    NamedTuple,
    NoReturn,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
)

from uda.utilities.annotations import matches, options_of, spell
from uda.utilities.errors import InputError, require, shortened, shown
from uda.utilities.user_code import class_name

T = TypeVar("T")

_LONGEST_NAME = 100  # characters
_MOST_NAMES = 60  # in one message; timm alone has two thousand

# By the class of a field: what makes its value from a name and the field's default, which is None
# where there is none. It raises InputError for an unknown name.
Makers = Mapping[Any, Callable[[str, Any], Any]]


def to_plain(config: Any) -> Any:
    """A dataclass tree as dicts, tuples, numbers, strings and None.

    Where several classes are possible, "type" holds the class name: in a member of a dict of
    dataclasses (an objective), and in a field that holds a subclass of its annotation (a network).
    """
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        hints = get_type_hints(type(config))
        plain = {}
        for field in dataclasses.fields(config):
            value = getattr(config, field.name)
            plain[field.name] = to_plain(value)
            if dataclasses.is_dataclass(value) and _dataclass_in(hints[field.name]) is not type(
                value
            ):
                plain[field.name] = {"type": class_name(type(value))} | plain[field.name]
        return plain
    if isinstance(config, dict):
        return {
            name: {"type": class_name(type(member))} | to_plain(member)
            for name, member in config.items()
        }
    return config


def from_plain(cls: type[T], values: Mapping[str, Any], *, origin: str) -> T:
    """The instance of `cls` from the values that `to_plain` made of it.

    A dict of dataclasses cannot be read: the classes of its members are not known here. A field
    with a default may be missing: the file is older than the field, which then has its default.
    Raises InputError, naming `origin`, for unknown or wrongly typed fields, and for missing ones
    without a default.
    """
    hints = get_type_hints(cls)
    own = dataclasses.fields(typing.cast(Any, cls))
    names = [field.name for field in own]
    needed = {f.name for f in own if f.default is f.default_factory is dataclasses.MISSING}
    if not isinstance(values, Mapping) or not needed <= set(values) <= set(names):
        found = sorted(map(str, values)) if isinstance(values, Mapping) else type(values).__name__
        raise InputError(
            f"{origin}: {cls.__name__} has fields {sorted(names)}, the file {shown(found, 400)}"
        )
    arguments = {}
    for name in values:
        nested = {option.__name__: option for option in _dataclasses_in(hints[name])}
        value = values[name]
        if nested and isinstance(value, Mapping):
            # Without a "type" it is of the first.
            kind = nested.get(value.get("type"))
            kept = {n: v for n, v in value.items() if n != "type"} if kind is not None else value
            value = from_plain(kind or next(iter(nested.values())), kept, origin=origin)
        arguments[name] = value
    config = cls(**arguments)
    check_types(config, origin=origin)
    return config


def with_defaults(config: Any, values: Any) -> Any:
    """`values`, what an earlier version's `to_plain` made of such a tree, with the fields that it
    lacks, which are younger, at their defaults."""
    if isinstance(config, dict) and isinstance(values, Mapping):
        return {name: with_defaults(config.get(name), value) for name, value in values.items()}
    if not dataclasses.is_dataclass(config) or not isinstance(values, Mapping):
        return values
    filled, own = dict(values), to_plain(config)
    if values.get("type", class_name(type(config))) != class_name(type(config)):
        return filled
    for field in dataclasses.fields(config):
        name, default = field.name, field.default
        if default is dataclasses.MISSING and field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if name not in values and default is not dataclasses.MISSING:
            filled[name] = to_plain(default)
        elif isinstance(value := values.get(name), Mapping):
            if isinstance(own[name], dict) and "type" in own[name] and "type" not in value:
                value = {"type": class_name(type(default))} | dict(value)
            filled[name] = with_defaults(getattr(config, name), value)
    return filled


def check_types(config: Any, *, origin: str) -> None:
    """Raises InputError, naming the field after `origin`, when a value is not of its annotation."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), f"{origin}.{field.name}"
        if dataclasses.is_dataclass(value):
            fits = isinstance(value, _dataclasses_in(hints[field.name]))
            require(fits, f"{path} cannot be a {type(value).__name__}")
            check_types(value, origin=path)
            continue
        fits = matches(value, hints[field.name])
        require(fits, f"{path} is {shown(value)}; allowed: {spell(hints[field.name])}")
        if isinstance(value, dict):
            for name, member in value.items():
                if dataclasses.is_dataclass(member):
                    check_types(member, origin=f"{path}.{name}")


def apply_override(config: Any, assignment: str, makers: Makers = MappingProxyType({})) -> None:
    """Sets one field of a dataclass tree from text such as `train.optimizer.lr=1e-4`.

    A field that holds a dataclass takes `default`, or a name that the maker of its class knows;
    `none` empties an optional field. So do the members of a dict of dataclasses: a name adds or
    replaces one, and `none` removes it. Raises InputError when a field is unknown (the nearest
    known one is named) or the text does not fit its annotation.
    """
    path, equals, text = (part.strip() for part in assignment.partition("="))
    if not equals or not path:
        raise InputError(f"--set {shown(assignment)}: write it as name=value, e.g. train.seed=1")
    place = _Place(shortened(assignment), shortened(path), makers)
    *parents, last = path.split(".")
    annotation: Any = type(config)
    for depth, name in enumerate(parents, 1):
        annotation = place.annotation_below(config, annotation, name)
        config = config[name] if isinstance(config, dict) else getattr(config, name)
        if config is None:
            place.refuse_none(".".join(parents[:depth]), annotation)
    if isinstance(config, dict) and text.lower() != "none":
        config[last] = place.made(text, get_args(annotation)[1], None, in_dict=True)
        return
    annotation = place.annotation_below(config, annotation, last)
    if isinstance(config, dict):
        del config[last]
    elif _dataclass_in(annotation) is None:
        setattr(config, last, _parse(text, annotation, place.assignment))
    else:
        setattr(config, last, place.made(text, annotation, default_of(type(config), last)))


class _Place(NamedTuple):
    """Where an override leads, and how its refusals quote it."""

    assignment: str
    path: str
    makers: Makers

    def annotation_below(self, config: Any, annotation: Any, name: str) -> Any:
        """That of a member of a dict or of a dataclass; InputError when there is no such member."""
        if isinstance(config, dict):
            known, cls = list(config), get_args(annotation)[1]
        elif dataclasses.is_dataclass(config):
            known, cls = [field.name for field in dataclasses.fields(config)], None
        else:
            raise InputError(
                f"--set {self.path}: {shown(name)} is below a value that has no fields"
            )
        if name not in known:
            advice = suggest(name, known)
            if cls in self.makers and self._knows(cls, name):
                advice += f"; to add it: --set {self.path.partition('.')[0]}.{name}={name}"
            raise InputError(f"--set {self.path}: there is no {shown(name)}; {advice}")
        return cls or get_type_hints(type(config))[name]

    def _knows(self, cls: Any, name: str) -> bool:
        try:
            self.makers[cls](name, None)
        except InputError:
            return False
        return True

    def refuse_none(self, path: str, annotation: Any) -> NoReturn:
        """What was to be set lies below an optional dataclass that is none."""
        value = "default" if _has_default(_dataclass_in(annotation)) else "NAME"
        raise InputError(
            f"--set {self.assignment}: {path} is none in this preset; before it, add "
            f"--set {path}={value}"
        )

    def made(self, text: str, annotation: Any, default: Any, *, in_dict: bool = False) -> Any:
        """The dataclass that `text` names for a field of this annotation and default."""
        cls, optional = _dataclass_in(annotation), NoneType in options_of(annotation)
        maker = self.makers.get(cls)
        plain = maker is None and not in_dict and _has_default(cls)
        if optional and text.lower() == "none":
            return None
        if text.lower() == "default" and (default is not None or plain):
            return cls() if default is None else default
        if maker is not None:
            try:
                return maker(text, default)
            except InputError as error:
                raise InputError(f"--set {self.assignment}: {error}") from None
        words = ["default"] * plain + ["none"] * (optional or in_dict)
        raise InputError(
            f"--set {self.assignment}: {shown(text)} is not {spell(annotation)}; "
            + (f"allowed: {' or '.join(words)}; " if words else "")
            + f"fields are set one by one: --set {self.path}.FIELD=VALUE"
        )


def default_of(owner: Any, name: str) -> Any:
    """A fresh default of a field; None without one."""
    field = next(field for field in dataclasses.fields(owner) if field.name == name)
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def _has_default(cls: Any) -> bool:
    """Whether every field of the dataclass has a default."""
    missing = dataclasses.MISSING
    return not any(f.default is f.default_factory is missing for f in dataclasses.fields(cls))


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` for the nearest known name, or the list of them all, or of the first."""
    names = sorted(known)
    # What is longer than any name takes long to compare, and is near to none.
    near = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1, cutoff=0.6)
    if near:
        return f'did you mean "{near[0]}"?'
    left_out = len(names) - _MOST_NAMES
    more = f", and {left_out} more" if left_out > 0 else ""
    return f"known: {', '.join(names[:_MOST_NAMES])}{more}"


def differences(ours: Any, theirs: Any, path: str = "") -> list[str]:
    """Dotted names of the plain values that differ between two `to_plain` results."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        found = []
        for name in sorted(set(ours) | set(theirs)):
            where = f"{path}.{name}" if path else str(name)
            if name not in ours or name not in theirs:
                found.append(where)
            else:
                found += differences(ours[name], theirs[name], where)
        return found
    same = ours == theirs and isinstance(ours, bool) == isinstance(theirs, bool)
    return [] if same else [path]


def _dataclasses_in(annotation: Any) -> tuple[Any, ...]:
    return tuple(filter(dataclasses.is_dataclass, options_of(annotation)))


def _dataclass_in(annotation: Any) -> Any:
    """That of the annotation; of a union of several, the first."""
    return next(iter(_dataclasses_in(annotation)), None)


def _parse(text: str, annotation: Any, assignment: str) -> Any:
    value = _read(text, annotation)
    if not matches(value, annotation):
        wanted = "a number of 64 bits" if isinstance(value, int) else spell(annotation)
        raise InputError(f"--set {assignment}: {shown(text)} is not {wanted}")
    return value


def _read(text: str, annotation: Any) -> Any:
    """`text` as the annotation would have it; the text itself where it does not fit."""
    if len(options := options_of(annotation)) > 1:
        if type(None) in options and text.lower() == "none":
            return None
        return _read(text, next(option for option in options if option is not type(None)))
    if get_origin(annotation) is Literal:
        return next((v for v in get_args(annotation) if str(v) == text), text)
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        parts = [part.strip() for part in text.strip("()").split(",") if part.strip()]
        repeated = len(items) == 2 and items[1] is Ellipsis
        kinds = [items[0]] * len(parts) if repeated else items
        if len(kinds) != len(parts):
            return text
        return tuple(map(_read, parts, kinds))
    if annotation is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    if annotation in (int, float) and text.isascii():  # int() knows the digits of all scripts
        try:
            return annotation(text)
        except ValueError:
            return text
    return text
