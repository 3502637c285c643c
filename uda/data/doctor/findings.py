"""What the check of the data found, and how bad it is."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from uda.utilities.terminal import printable

Severity = Literal["problem", "note"]


class Item(NamedTuple):
    """A file, or whatever else a finding is about, and what is the matter with it."""

    name: str
    remark: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.remark})" if self.remark else self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One kind of trouble in one set of images."""

    kind: str  # a word or two: the same trouble has the same name in every set
    where: str  # such as "cityscapes train"
    severity: Severity  # a problem stops a run or spoils it; a note is good to know
    text: str  # what was found, without a full stop
    fix: str  # what to do about it
    items: tuple[Item, ...] = ()


def listed(items: tuple[Item, ...], most: int = 3) -> str:
    """The first few of `items`, and how many more there are."""
    shown = "; ".join(printable(str(item)) for item in items[:most])
    return shown if len(items) <= most else f"{shown}; and {len(items) - most} more"


def finding(
    *,
    kind: str,
    where: str,
    text: str,
    fix: str,
    items: Iterable[Item],
    severity: Severity = "problem",
) -> list[Finding]:
    """The finding that `text` is true of all `items`, counted; none where there are none."""
    items = tuple(items)
    if not items:
        return []
    return [
        Finding(
            kind=kind, where=where, severity=severity, text=f"{len(items)} {text}", fix=fix,
            items=items,
        )
    ]  # fmt: skip
