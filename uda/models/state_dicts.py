"""State dicts from files: taken out of what is around them, and compared with what is wanted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor

from uda.errors import tally

# What nn.DataParallel and the multi-scale wrapper of DeepLab's authors put before every name.
PREFIXES = ("module.", "Scale.")
_OUTER = ("state_dict", "model_state", "model")  # under one of these a state dict may lie
_DEEPEST = 10  # a dict may hold itself
_LISTED = 6  # names in a report
_COUNTER = ".num_batches_tracked"  # of batches seen; nothing reads it, and older files lack it


def is_counter(name: str) -> bool:
    """Whether the tensor of that name counts batches, and so may be missing."""
    return name.endswith(_COUNTER)


def unwrapped(content: object, prefixes: Sequence[str] = PREFIXES) -> dict[str, object]:
    """The state dict in what torch.load returned; empty when there is none. The dicts around it are
    taken off; so are the `prefixes`, in any order, that the names of all its tensors begin with.
    """
    found: Mapping[object, object] = content if isinstance(content, Mapping) else {}
    for _ in range(_DEEPEST):
        inner = [value for o in _OUTER if isinstance(value := found.get(o), Mapping)]
        if not inner:
            break
        found = max(inner, key=len)  # an empty or small one beside it is no state dict
    named = {str(name): value for name, value in found.items()}
    # Only where all tensors have it: two names that become one would hide a tensor.
    while shared := [p for p in prefixes if _all_begin(named, p)]:
        named = {name.removeprefix(shared[0]): value for name, value in named.items()}
    return named


def _all_begin(named: Mapping[str, object], prefix: str) -> bool:
    tensors = [name for name, value in named.items() if isinstance(value, Tensor)]
    names = tensors or list(named)  # counts of steps and the like may stand beside tensors
    return bool(names) and all(name.startswith(prefix) for name in names)


def listed(names: Sequence[str]) -> str:
    """The names, or the first of many and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What a file holds, beside what a network wants of it."""

    wanted: int  # tensors, without counters
    fitting: dict[str, Tensor]
    counters: dict[str, Tensor]  # all that are wanted; those the file lacks are 0
    missing: list[str]
    unexpected: list[str]
    misshapen: list[str]  # of another shape, of another type or no tensors, counters among them

    @property
    def complete(self) -> bool:
        """Whether nothing that is wanted is missing or does not fit."""
        return not self.missing and not self.misshapen

    def __str__(self) -> str:
        return (
            f"{len(self.fitting)} of {self.wanted} tensors match, {tally(self.missing)} missing, "
            f"{tally(self.unexpected)} unexpected, {tally(self.misshapen)} of another shape or type"
        )


def compare(entries: Mapping[str, object], shapes: Mapping[str, torch.Size]) -> Comparison:
    """`entries` of a state dict beside the `shapes` of those that a network has."""
    counters = {n: torch.zeros((), dtype=torch.long) for n in shapes if is_counter(n)}
    fitting, misshapen = {}, []
    for name, shape in shapes.items():
        value = entries.get(name)
        if name not in entries:
            continue
        if not _is_like(value, shape, whole=name in counters):
            misshapen.append(name)
        elif name in counters:
            counters[name] = value
        else:
            fitting[name] = value
    return Comparison(
        wanted=len(shapes) - len(counters),
        fitting=fitting,
        counters=counters,
        missing=[n for n in shapes if n not in entries and n not in counters],
        unexpected=[name for name in entries if name not in shapes],
        misshapen=misshapen,
    )


def is_real(tensor: Tensor) -> bool:
    """Whether it holds real numbers, every one of them, where every network can take them from."""
    return (
        not tensor.is_nested  # which has no shape to ask for
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"  # not "meta", which holds none
        and not tensor.is_quantized
        and not tensor.is_complex()
    )


def _is_like(value: object, shape: torch.Size, *, whole: bool) -> TypeGuard[Tensor]:
    """Whether `value` is a tensor of that shape that holds whole numbers, or real ones."""
    return (
        isinstance(value, Tensor)
        and is_real(value)
        and value.shape == shape
        and value.dtype.is_floating_point != whole
    )
