"""Files of torch.save and of safetensors, read without running code; and their digests."""

import hashlib
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeGuard

import torch
from torch import Tensor, nn

from uda.utilities.errors import InputError, require, tally
from uda.utilities.extras import MissingPackageError
from uda.utilities.safetensors_files import is_safetensors, read_safetensors
from uda.utilities.schema import is_real
from uda.utilities.sealed_files import DamagedFileError
from uda.utilities.tensor_order import in_order, is_prefixed, offer, taken_in_order
from uda.utilities.tensor_values import require_finite
from uda.utilities.torch_archives import check_torch_file

# How torch words what it will not build: a class or function, by name.
_REFUSED = (
    r"Unsupported global: GLOBAL (\S+) was not an allowed global",
    r"Trying to load unsupported GLOBAL (\S+) whose module",
)


_WHOLE = "copy or download it again, or take another file of that run"


class UnsafeFileError(InputError):
    """A file holds more than tensors and plain values, or is damaged: torch refuses to say which
    before it has run what could be code."""


def read_weights(path: Path, *, expected: str, instead: str) -> object:
    """What `torch.save` wrote, on the CPU, or `read_safetensors` returns. No code of the file is
    run.

    Raises InputError when the file is missing, naming what is `expected`, or cannot be read; and
    UnsafeFileError, saying what to do `instead`, when it could run code.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path} is a device or a pipe, not a file: give {expected}")
    try:
        with warnings.catch_warnings(action="ignore"):  # torch comments on files of other tools
            if is_safetensors(path):
                return read_safetensors(path)
            with path.open("rb") as file:
                check_torch_file(file)
                return torch.load(file, map_location="cpu", weights_only=True)
    except MissingPackageError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; expected {expected}") from None
    except DamagedFileError as error:
        raise InputError(f"{path} is damaged: {error}; {_WHOLE}: give {expected}") from None
    except pickle.UnpicklingError as error:
        raise UnsafeFileError(f"{path} {_what_torch_refused(error)}: {instead}") from None
    except Exception as error:  # damaged archives raise whatever the reader stumbles over
        raise InputError(
            f"{path} cannot be read as weights ({reason(error)}): give {expected}"
        ) from None


def _what_torch_refused(error: pickle.UnpicklingError) -> str:
    for pattern in _REFUSED:
        if found := re.search(pattern, str(error)):
            name = ascii(found[1])[1:-1]  # a terminal would obey what a file's author put in
            return f"holds {name}, which could run code when loaded"
    return "is damaged, or holds objects beyond tensors and plain values, which could run code"


def reason(error: Exception) -> str:
    """The kind of an error and the beginning of its message, in one line."""
    text = " ".join([f"{type(error).__name__}:", *str(error).split()]).removesuffix(":")
    if len(text) <= _LONGEST_REASON:
        return text
    return f"{text[:_LONGEST_REASON].rpartition(' ')[0]} ..."


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal; of a folder, that of its files' names and SHA-256s."""
    if path.is_dir():
        files = sorted(inner for inner in path.iterdir() if inner.is_file())
        listed = "".join(f"{sha256(inner)}  {inner.name}\n" for inner in files)
        return hashlib.sha256(listed.encode(errors="surrogateescape")).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identity(path: Path) -> str:
    """The file's name and the beginning of its SHA-256, as runs store it."""
    return f"{path.name} sha256:{sha256(path)[:12]}"


# What nn.DataParallel and the multi-scale wrapper of DeepLab's authors put before every name.
PREFIXES = ("module.", "Scale.")
# Under one of these a state dict may lie, or under one of its values; the last is ProDA's.
_OUTER = ("state_dict", "model_state", "model", "model_state_dict", "net", "network", "ResNet101")
_DEEPEST = 10  # a dict may hold itself
_LISTED = 6  # names in a report
_LONGEST_REASON = 120  # characters
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
        found = max(inner, key=len)  # an empty or small one next to it is not a state dict
    named = {str(name): value for name, value in found.items()}
    # Only where all tensors have it: two names that become one would hide a tensor.
    while shared := [p for p in prefixes if _all_begin(named, p)]:
        named = {name.removeprefix(shared[0]): value for name, value in named.items()}
    return named


def _all_begin(named: Mapping[str, object], prefix: str) -> bool:
    tensors = [name for name, value in named.items() if isinstance(value, Tensor)]
    names = tensors or list(named)  # counts of steps and the like may be next to tensors
    return bool(names) and all(name.startswith(prefix) for name in names)


def listed(names: Sequence[str]) -> str:
    """The names, or the first of many and how many more there are."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The tensors of a file, compared with those of a network."""

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
    """`entries` of a state dict, compared with the `shapes` of a network's."""
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


def fill(
    network: nn.Module, entries: Mapping[str, object], *, origin: str, title: str, instead: str
) -> None:
    """Loads the entries of a state dict, which must fit the network exactly and be finite.

    Raises InputError when they do not: `origin` is not a `title`; `instead` says what to give.
    """
    found = compare(entries, {name: t.shape for name, t in network.state_dict().items()})
    require(
        found.complete and not found.unexpected,
        f"{origin} does not hold the weights of a {title}: {found}; {instead}",
    )
    require_finite(found.fitting, origin)
    network.load_state_dict(found.fitting | found.counters)


def fill_from_file(
    network: nn.Module,
    path: Path,
    *,
    title: str,
    kind: str,
    instead: str,
    prefixes: Sequence[str] = PREFIXES,
    select: Callable[[dict[str, object]], Mapping[str, object]] = dict,
    option: str = "",
    by_order: bool = False,
) -> str:
    """Loads a state dict from disk, which must fit the network exactly; returns the file's name
    and SHA-256, and whether its tensors were taken by their order.

    `title`: the network in words; `kind`: of file; `instead`: what to do with another; `select`:
    the network's entries among those of the state dict; `option`: which named the file; `by_order`:
    names do not count, but the order of the tensors.
    Raises InputError when the file is missing, damaged, or of another network.
    """
    content = read_weights(
        path,
        expected=f"a {kind}",
        instead=f"python scripts/convert_checkpoint.py --tensors {path} OUT takes its tensors out, "
        f"and runs nothing; {instead}",
    )
    require(
        isinstance(content, Mapping),
        f"{path} holds a {type(content).__name__}; allowed: a {kind}, alone or under "
        f"{', '.join(map(repr, _OUTER))}",
    )
    entries = unwrapped(content, prefixes)
    selected = select(entries)
    own = {name: t.shape for name, t in network.state_dict().items()}
    if by_order or not compare(selected, own).complete:
        theirs = {n: v for n, v in entries.items() if isinstance(v, Tensor) and not is_counter(n)}
        shapes = {name: shape for name, shape in own.items() if not is_counter(name)}
        found = in_order(theirs, shapes)
        if by_order:
            selected = taken_in_order(found, path, title)
        elif found is not None and option and not is_prefixed(found):
            raise InputError(offer(found, path, title, option))
    fill(network, selected, origin=str(path), title=title, instead=instead)
    return f"{path.name} sha256:{sha256(path)}" + (", by the order of its tensors" * by_order)


def is_array(value: object, *dimensions: int) -> TypeGuard[Tensor]:
    """Whether `value` is a dense tensor of real numbers with one of these numbers of dimensions; of
    any but none where there are none given. Others cannot be split or joined."""
    return (
        isinstance(value, Tensor)
        and is_real(value)
        and (value.ndim in dimensions if dimensions else value.ndim > 0)
    )


def _is_like(value: object, shape: torch.Size, *, whole: bool) -> TypeGuard[Tensor]:
    """Whether `value` is a tensor of that shape that holds whole numbers, or real ones."""
    return (
        isinstance(value, Tensor)
        and is_real(value)
        and value.shape == shape
        and value.dtype.is_floating_point != whole
    )
