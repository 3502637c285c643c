"""Dataclass trees as plain values, as `a.b=c` overrides, and checked against their annotations."""

import dataclasses
import difflib
import sys
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from uda.utilities.errors import InputError, shortened, shown

T = TypeVar("T")

_INT_LIMIT = 2**63  # what torch and numpy count with
_LONGEST_NAME = 100  # characters


def to_plain(config: Any) -> Any:
    """Dicts, tuples, numbers, strings and None that say the same as a dataclass tree.

    Where several classes are possible, the class name stands under "type": in a member of a dict of
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
                plain[field.name] = {"type": type(value).__name__} | plain[field.name]
        return plain
    if isinstance(config, dict):
        return {
            name: {"type": type(member).__name__} | to_plain(member)
            for name, member in config.items()
        }
    return config


def from_plain(cls: type[T], values: Mapping[str, Any], *, origin: str) -> T:
    """The dataclass `cls` that `to_plain` was given; its fields hold plain values or dataclasses.

    A dict of dataclasses cannot be made again: where its members' classes live is not known here.
    A field that has a default may be missing: it is younger than the file, and without it all was
    as by default. Raises InputError, naming `origin`, for unknown or wrongly typed fields, and for
    missing ones without a default.
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
        nested = _dataclass_in(hints[name])
        value = values[name]
        if nested is not None and isinstance(value, Mapping):
            value = from_plain(nested, value, origin=origin)
        arguments[name] = value
    config = cls(**arguments)
    check_types(config, origin=origin)
    return config


def check_types(config: Any, *, origin: str) -> None:
    """Raises InputError, naming the field after `origin`, when a value is not of its annotation."""
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        value, path = getattr(config, field.name), f"{origin}.{field.name}"
        if dataclasses.is_dataclass(value):
            expected = _dataclass_in(hints[field.name])
            if expected is None or not isinstance(value, expected):
                raise InputError(f"{path} cannot be a {type(value).__name__}")
            check_types(value, origin=path)
            continue
        if not _matches(value, hints[field.name]):
            raise InputError(f"{path} is {shown(value)}; allowed: {_spell(hints[field.name])}")
        if isinstance(value, dict):
            for name, member in value.items():
                if dataclasses.is_dataclass(member):
                    check_types(member, origin=f"{path}.{name}")


def apply_override(config: Any, assignment: str) -> None:
    """Sets one field of a dataclass tree from text such as `train.optimizer.lr=1e-4`.

    `none` empties an optional field and removes a member of a dict. Raises InputError when the
    name is unknown (the nearest known one is named) or the text does not fit the annotation.
    """
    path, equals, text = assignment.partition("=")
    if not equals or not path.strip():
        raise InputError(f"--set {shown(assignment)}: write it as name=value, e.g. train.seed=1")
    assignment = shortened(assignment)  # from here on it is only quoted
    *parents, last = path.strip().split(".")
    for name in parents:
        config = _child(config, name, path)
        if config is None:
            raise InputError(f"--set {assignment}: {shortened(name)} is none in this preset")
    if isinstance(config, dict):
        _child(config, last, path)
        if text.strip().lower() != "none":
            raise InputError(
                f"--set {assignment}: only {shortened(path)}=none is allowed; set its fields"
            )
        del config[last]
        return
    _child(config, last, path)
    annotation = get_type_hints(type(config))[last]
    setattr(config, last, _parse(text.strip(), annotation, assignment))


def suggest(name: str, known: Iterable[str]) -> str:
    """`did you mean "x"?` for the nearest known name, or the list of them all."""
    names = sorted(known)
    # What is longer than any name takes long to compare, and is near to none.
    near = difflib.get_close_matches(name[:_LONGEST_NAME], names, n=1, cutoff=0.6)
    return f'did you mean "{near[0]}"?' if near else f"known: {', '.join(names)}"


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


def _child(config: Any, name: str, path: str) -> Any:
    if isinstance(config, dict):
        known = list(config)
    elif dataclasses.is_dataclass(config):
        known = [field.name for field in dataclasses.fields(config)]
    else:
        raise InputError(
            f"--set {shortened(path)}: {shown(name)} is below a value that has no fields"
        )
    if name not in known:
        raise InputError(
            f"--set {shortened(path)}: there is no {shown(name)}; {suggest(name, known)}"
        )
    return config[name] if isinstance(config, dict) else getattr(config, name)


def _union(annotation: Any) -> tuple[Any, ...] | None:
    return get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else None


def _dataclass_in(annotation: Any) -> Any:
    options = _union(annotation) or (annotation,)
    return next((option for option in options if dataclasses.is_dataclass(option)), None)


def _matches(value: Any, annotation: Any) -> bool:
    if (options := _union(annotation)) is not None:
        return any(_matches(value, option) for option in options)
    if annotation is type(None):
        return value is None
    if get_origin(annotation) is Literal:
        return any(value == allowed and type(value) is type(allowed)
                   for allowed in get_args(annotation))  # fmt: skip
    if get_origin(annotation) is dict:
        of_key, of_item = get_args(annotation)
        return isinstance(value, dict) and all(
            _matches(key, of_key) and _matches(item, of_item) for key, item in value.items()
        )
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        if not isinstance(value, tuple):
            return False
        if len(items) == 2 and items[1] is Ellipsis:
            return all(_matches(item, items[0]) for item in value)
        return len(value) == len(items) and all(map(_matches, value, items))
    if annotation is float:
        # A whole number that float() would refuse is compared, not converted.
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return number and abs(value) <= sys.float_info.max
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < _INT_LIMIT
    return isinstance(annotation, type) and isinstance(value, annotation)


def _parse(text: str, annotation: Any, assignment: str) -> Any:
    value = _read(text, annotation)
    if not _matches(value, annotation):
        wanted = "a number of 64 bits" if isinstance(value, int) else _spell(annotation)
        raise InputError(f"--set {assignment}: {shown(text)} is not {wanted}")
    return value


def _read(text: str, annotation: Any) -> Any:
    """`text` as the annotation would have it; the text itself where it does not fit."""
    if (options := _union(annotation)) is not None:
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


def _spell(annotation: Any) -> str:
    if (options := _union(annotation)) is not None:
        return " or ".join(_spell(option) for option in options)
    if annotation is type(None):
        return "none"
    if get_origin(annotation) is Literal:
        return "one of " + ", ".join(map(str, get_args(annotation)))
    if get_origin(annotation) is tuple:
        items = get_args(annotation)
        if len(items) == 2 and items[1] is Ellipsis:
            return f"any number of {_spell(items[0])}, with commas"
        return f"{len(items)} values, with commas: " + ", ".join(map(_spell, items))
    if get_origin(annotation) is dict:
        return f"names, each with a {_spell(get_args(annotation)[1])}"
    names = {bool: "true or false", int: "a whole number", float: "a finite number", str: "text"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))
