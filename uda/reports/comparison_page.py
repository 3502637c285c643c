"""The page of several runs: methods by classes, seeds, selections, and who is better."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uda.reports.bootstrap import DRAWS, differences
from uda.reports.comparison import Figure, Group, Method
from uda.reports.page import write_page
from uda.training.summary import ORACLE


def comparison_page(groups: Sequence[Group], path: Path, *, command: str) -> Path:
    """Writes the page of the methods in `groups` to `path`; the path.

    `command`: what made it. Raises WriteError when it cannot be written.
    """
    values = {
        "groups": [_of_group(group) for group in groups],
        "runs": [found.run for group in groups for m in group.methods for found in m.runs],
        "count": sum(len(m.last.values) for group in groups for m in group.methods),
        "methods": sum(len(group.methods) for group in groups),
        "draws": DRAWS,
        "command": command,
    }
    return write_page(path, "comparison.html", values)


def _of_group(group: Group) -> dict[str, Any]:
    every = [value for method in group.methods for value in method.last.values]
    low, high = min(every, default=0.0), max(every, default=1.0)
    found = list(differences(group))
    return {
        "protocol": group.methods[0].protocol,
        "reason": group.reason,
        "label_free": group.label_free,
        "classes": group.methods[0].classes,
        "low": low,
        "high": high,
        "rows": [_row(group, method, low, high - low) for method in group.methods],
        "differences": found,
        "known": any(not each.missing for each in found),
        "best": {
            name: max((f.mean for m in group.methods if (f := m.per_class[name]).mean), default=0)
            for name in group.methods[0].classes
        },
    }


def _row(group: Group, method: Method, low: float, span: float) -> dict[str, Any]:
    ways = (ORACLE, *group.label_free)
    return {
        "method": method,
        "selected": [method.selected.get(way, Figure(())) for way in ways],
        # Places of the seeds between the lowest and the highest value of the group.
        "dots": [5 + 90 * (value - low) / (span or 1.0) for value in method.last.values],
    }
