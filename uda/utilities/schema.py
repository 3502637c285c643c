"""What the values in a file must look like, declared as annotations.

dict, list and tuple[T, ...] with their items; unions; str; bool; int (0 or more); float; None
Plain       numbers, text, None, and tuples, lists and dicts with text keys of such
Tensor      dense real numbers on the CPU
TypedDict   its entries; more entries are allowed
"""

from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints, is_typeddict

import torch
from torch import Tensor

from uda.utilities.annotations import Kind, Kinds, instances, matches, options_of, spell, whole
from uda.utilities.errors import shown

_DEEPEST = 20  # levels of plain values; a pickle can hold a dict that holds itself


class Plain:
    """Annotates values that can be read without any class of this library."""


def fault(value: object, annotation: Any, where: str = "it") -> str:
    """What is wrong with `value`, in words that begin with `where`; empty when nothing is."""
    if is_typeddict(annotation):
        return _fault_of_entries(value, annotation, where)
    if len(choices := options_of(annotation)) > 1:
        faults = [fault(value, choice, where) for choice in choices]
        # Of "a dict or none", the dict's own fault says more than "is neither".
        return "" if "" in faults else faults[0]
    options = get_args(annotation)
    match get_origin(annotation):
        case origin if origin is dict and isinstance(value, dict):
            of_key, of_item = options
            odd = next((key for key in value if fault(key, of_key)), None)
            if odd is not None:
                return f"{where} has an entry {shown(odd)}; allowed: {spell(of_key, _OF_FILES)}"
            return _first_fault(value, of_item, where)
        case origin if origin is list and isinstance(value, list):
            return _first_fault(dict(enumerate(value)), options[0], where)
        case origin if origin is tuple and isinstance(value, tuple):
            return _first_fault(dict(enumerate(value)), options[0], where)
    if matches(value, annotation, _OF_FILES):
        return ""
    return f"{where} is {_described(value)}; allowed: {spell(annotation, _OF_FILES)}"


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


def _is_plain(value: object, depth: int = 0, known: set[int] | None = None) -> bool:
    """`known`: identities of values that were found plain; a file may repeat one very often."""
    if value is None or isinstance(value, bool | int | float | str):
        return True
    known = set() if known is None else known
    if id(value) in known:
        return True
    if depth == _DEEPEST or not isinstance(value, dict | tuple | list):
        return False
    items = value.values() if isinstance(value, dict) else value
    named = not isinstance(value, dict) or all(isinstance(key, str) for key in value)
    if not named or not all(_is_plain(item, depth + 1, known) for item in items):
        return False
    known.add(id(value))
    return True


def _described(value: object) -> str:
    """A short value as it is written, anything else by its kind."""
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return shown(value)
    odd = isinstance(value, Tensor) and not is_real(value)
    return "a " + ("sparse, complex or empty " * odd) + type(value).__name__


def is_real(tensor: Tensor) -> bool:
    """Whether `tensor` is dense, holds real numbers, and has them in the CPU's memory."""
    return (
        not tensor.is_nested  # nested tensors have no shape
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"  # not "meta", which has no values
        and not tensor.is_quantized
        and not tensor.is_complex()
        # Floats of a byte are scaled by numbers that are stored elsewhere.
        and not (tensor.is_floating_point() and tensor.dtype.itemsize == 1)
    )


_OF_FILES: Kinds = {
    str: instances("text", str),
    bool: instances("true or false", bool),
    int: whole("a whole number, 0 or more", lowest=0),
    NoneType: instances("none", NoneType),
    float: instances("a number", float),
    Plain: Kind("numbers and text", _is_plain),
    Tensor: Kind(
        "a dense tensor of real numbers", lambda value: isinstance(value, Tensor) and is_real(value)
    ),
    dict: instances("a dict", dict),
    list: instances("a list", list),
    tuple: instances("a tuple", tuple),
}
