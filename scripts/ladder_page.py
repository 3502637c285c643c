"""The ladder as a page: the same tables as `uda compare` makes of runs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from uda.reports.comparison import Figure, Group, Method
from uda.reports.comparison_page import comparison_page

_PROTOCOL = "native on cityscapes val: the toy city's 80 validation images, as stored"


def write_page(found: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Writes the page of the figures in toy_ladder.json, method -> its figures, the best first."""
    methods = [_method(title, values) for title, values in [*found.items()][::-1]]
    comparison_page([Group(tuple(methods), "")], path, command="make ladder")


def _method(title: str, values: Mapping[str, Any]) -> Method:
    return Method(
        name=f"{title} (mistake)" if values["mistake"] else title,
        runs=(),
        supervision=values["supervision"],
        protocol=_PROTOCOL,
        classes=tuple(values["per_class"]),
        seeds=tuple(map(str, values["seeds"])),
        steps=str(values["steps"]),
        last=_figure(values["miou"]),
        selected={"last, batch norm re-estimated": _figure(values["miou_batch_norm_reestimated"])},
        per_class={name: _figure(numbers) for name, numbers in values["per_class"].items()},
    )


def _figure(numbers: list[float]) -> Figure:
    return Figure(tuple(numbers))
