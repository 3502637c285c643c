"""What values from outside have to look like, declared as annotations.

dict, list and tuple[T, ...] with their items; unions; str; bool; int (0 or more); float; None
Plain       numbers, text, None, and tuples, lists and dicts with text keys of such
Tensor      dense real numbers on the CPU
TypedDict   its entries; others may stand beside them
"""

from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

from torch import Tensor

from uda.utilities.errors import shown
from uda.utilities.weight_files import is_real

_DEEPEST = 20  # levels of plain values; a pickle can hold a dict that holds itself


class Plain:
    """Annotates what needs no class of ours to be understood."""


def fault(value: object, annotation: Any, where: str = "it") -> str:
    """What is wrong with `value`, in words that begin with `where`; empty when nothing is."""
    if is_typeddict(annotation):
        return _fault_of_entries(value, annotation, where)
    options = get_args(annotation)
    match get_origin(annotation):
        case origin if origin in (Union, UnionType):
            faults = [fault(value, option, where) for option in options]
            # Of "a dict or none", the dict's own fault says more than "is neither".
            return "" if "" in faults else faults[0]
        case origin if origin is dict and isinstance(value, dict):
            of_key, of_item = options
            odd = next((key for key in value if fault(key, of_key)), None)
            if odd is not None:
                return f"{where} has an entry {shown(odd)}; allowed: {_spell(of_key)}"
            return _first_fault(value, of_item, where)
        case origin if origin is list and isinstance(value, list):
            return _first_fault(dict(enumerate(value)), options[0], where)
        case origin if origin is tuple and isinstance(value, tuple):
            return _first_fault(dict(enumerate(value)), options[0], where)
    if _matches(value, annotation):
        return ""
    return f"{where} is {_described(value)}; allowed: {_spell(annotation)}"


def _fault_of_entries(value: object, schema: Any, where: str) -> str:
    if not isinstance(value, dict):
        return f"{where} is {_described(value)}; allowed: a dict"
    hints = get_type_hints(schema)  # without the NotRequired around some
    missing = [name for name in hints if name in schema.__required_keys__ and name not in value]
    if missing:
        return f"{where} has no {', '.join(missing)}"
    below = "" if where == "it" else f"{where}."
    faults = (fault(value[n], hint, below + n) for n, hint in hints.items() if n in value)
    return next(filter(None, faults), "")


def _first_fault(items: dict[Any, object], annotation: Any, where: str) -> str:
    faults = (fault(item, annotation, f"{where}.{shown_key(key)}") for key, item in items.items())
    return next(filter(None, faults), "")


def shown_key(key: object) -> str:
    """A key as a part of a dotted name."""
    return shown(key).strip("'\"")


def _matches(value: object, annotation: Any) -> bool:
    if annotation is Plain:
        return _is_plain(value)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63
    if annotation is Tensor:
        return isinstance(value, Tensor) and is_real(value)
    kind = get_origin(annotation) or annotation
    return isinstance(value, kind)


def _is_plain(value: object, depth: int = 0) -> bool:
    if value is None or isinstance(value, bool | int | float | str):
        return True
    if depth == _DEEPEST:
        return False
    if isinstance(value, dict):
        named = all(isinstance(key, str) for key in value)
        return named and all(_is_plain(item, depth + 1) for item in value.values())
    return isinstance(value, tuple | list) and all(_is_plain(item, depth + 1) for item in value)


def _described(value: object) -> str:
    """A short value as it is written, anything else by its kind."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return shown(value)
    return "a " + ("sparse, complex or empty " * _is_odd(value)) + type(value).__name__


def _is_odd(value: object) -> bool:
    return isinstance(value, Tensor) and not is_real(value)


def _spell(annotation: Any) -> str:
    words = {
        str: "text", bool: "true or false", int: "a whole number, 0 or more", NoneType: "none",
        float: "a number", Plain: "numbers and text", Tensor: "a dense tensor of real numbers",
        dict: "a dict", list: "a list", tuple: "a tuple",
    }  # fmt: skip
    return words[get_origin(annotation) or annotation]
