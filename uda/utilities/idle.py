"""Settings that change nothing: a remark where a preset brings them, refused where a user typed
them."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from uda.utilities.config_tree import default_of


@runtime_checkable
class KnowsIdle(Protocol):
    """A dataclass of settings, some of which may be idle."""

    def idle(self) -> Mapping[str, str]:
        """The fields, dotted where they lie deeper, that change nothing as the others are set, each
        with the reason."""
        ...


class Idle(NamedTuple):
    """A field that changes nothing, and the value that says so."""

    path: str  # dotted
    reason: str
    off: Any


def idle_fields(config: Any, path: str = "") -> Iterator[Idle]:
    """The fields of a dataclass tree that are idle by their owner's word and not at their
    default."""
    if isinstance(config, dict):
        members = config
    elif dataclasses.is_dataclass(config):
        members = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    else:
        return
    prefix = f"{path}." if path else ""
    if isinstance(config, KnowsIdle):
        for name, reason in config.idle().items():
            owner, last = _owner(config, name)
            off = default_of(type(owner), last)
            if getattr(owner, last) != off:
                yield Idle(f"{prefix}{name}", reason, off)
    for name, member in members.items():
        yield from idle_fields(member, f"{prefix}{name}")


def switch_off(config: Any, idle: Idle, typed: Iterable[str]) -> tuple[str, bool]:
    """Puts the idle field of the tree at its off value. What there is to say of it, and whether
    one of the `typed` paths is in vain."""
    owner, last = _owner(config, idle.path)
    value = getattr(owner, last)
    setattr(owner, last, idle.off)
    vain = [path for path in typed if f"{path}.".startswith(f"{idle.path}.")]
    if vain:
        what = "is set, but" if vain[0] == idle.path else f"changes nothing: {idle.path}"
        return f"{vain[0]} {what} is not used, as {idle.reason}; omit --set {vain[0]}", True
    said = "" if dataclasses.is_dataclass(value) else f" ({value})"
    return f"{idle.path}{said} is not used, as {idle.reason}", False


def _owner(config: Any, path: str) -> tuple[Any, str]:
    """The dataclass that the last name of a dotted path belongs to, and that name."""
    *parents, last = path.split(".")
    for name in parents:
        config = config[name] if isinstance(config, dict) else getattr(config, name)
    return config, last
