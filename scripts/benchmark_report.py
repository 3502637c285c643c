"""What `scripts/benchmark.py` has measured, as rows of a table and as plain values."""

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from uda.evaluation.reports import markdown_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """Ours and what it is compared with, measured in turns: one value per round each."""

    name: str
    case: str = ""  # which of several measured in the same way
    unit: str
    reference: Sequence[float]
    ours: Sequence[float]
    meaning: str  # in one sentence, the same for every case
    target: float | None = None  # of the ratio
    at_most: bool = False  # the ratio should be below the target, not above it

    @property
    def ratio(self) -> float:
        """Ours by what it is compared with: the quotient of the figures that the table shows."""
        return _middle(self.ours) / _middle(self.reference)

    @property
    def ratios(self) -> list[float]:
        """The quotient of each round."""
        return [ours / other for ours, other in zip(self.ours, self.reference, strict=True)]

    def values(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "case": self.case,
            "unit": self.unit,
            "reference": _middle(self.reference),
            "ours": _middle(self.ours),
            "ratio": round(self.ratio, 4),
            "target": self.target,
            "target_is": "at most" if self.at_most else "at least",
            "reference_rounds": list(map(_rounded, self.reference)),
            "ours_rounds": list(map(_rounded, self.ours)),
            "meaning": self.meaning,
        }

    def cells(self) -> list[str]:
        figures = (_shown(_middle(values)) for values in (self.reference, self.ours))
        spread = f"{min(self.ratios):.2f} to {max(self.ratios):.2f}"
        return [_title(self), self.unit, *figures, f"{self.ratio:.2f}", spread, self._verdict()]

    def _verdict(self) -> str:
        if self.target is None:
            return "-"
        met = self.ratio <= self.target if self.at_most else self.ratio >= self.target
        bound = "at most" if self.at_most else "at least"
        return f"{bound} {self.target:g}: {'met' if met else 'missed'}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """Something that is compared with nothing: one value per round."""

    name: str
    case: str = ""
    unit: str
    rounds: Sequence[float]
    meaning: str

    def values(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "case": self.case,
            "unit": self.unit,
            "value": _middle(self.rounds),
            "rounds": list(map(_rounded, self.rounds)),
            "meaning": self.meaning,
        }

    def cells(self) -> list[str]:
        spread = f"{_shown(min(self.rounds))} to {_shown(max(self.rounds))}"
        return [_title(self), self.unit, _shown(_middle(self.rounds)), spread]


Found = Sequence[Row | Figure]


def _title(row: Row | Figure) -> str:
    return f"{row.name}, {row.case}" if row.case else row.name


def _middle(values: Sequence[float]) -> float:
    """The median as it is shown."""
    return _rounded(median(values))


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _shown(value: float) -> str:
    """With four digits, and zeros instead of an exponent."""
    return f"{value:.4g}" if abs(value) < 1e4 else f"{_rounded(value):.0f}"


def machine(device: torch.device) -> dict[str, object]:
    """The machine in words: nothing that says whose it is or where."""
    facts: dict[str, object] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if device.type == "cuda":
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def plain_values(found: Found, facts: Mapping[str, object]) -> dict[str, Any]:
    """All that was measured, for a JSON file; `facts` come first."""
    return {
        **facts,
        "rows": [row.values() for row in found if isinstance(row, Row)],
        "figures": [figure.values() for figure in found if isinstance(figure, Figure)],
    }


def markdown(found: Found, facts: Mapping[str, object]) -> str:
    """Both tables, and below them what each row means."""
    rows = [row.cells() for row in found if isinstance(row, Row)]
    figures = [figure.cells() for figure in found if isinstance(figure, Figure)]
    head = ["measured", "unit", "compared with", "ours", "ratio", "rounds", "target"]
    parts = [f"{name.replace('_', ' ')}: {fact}" for name, fact in facts.items()]
    blocks = ["; ".join(parts) + "."]
    if rows:
        blocks.append(_table(head, rows, numbers=range(2, 5)))
    if figures:
        head = ["figure", "unit", "median", "rounds"]
        blocks.append(_table(head, figures, numbers=range(2, 3)))
    meanings = {f"- **{row.name}** ({row.unit}): {row.meaning}": None for row in found}
    blocks.append("\n".join(meanings))
    return "\n\n".join(blocks) + "\n"


def _table(head: list[str], rows: list[list[str]], *, numbers: range) -> str:
    rule = ["---:" if column in numbers else "---" for column in range(len(head))]
    return markdown_rows([head, rule, *rows])
