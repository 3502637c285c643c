"""metrics.jsonl of a run, as series by name: losses, rates, scores, monitors and their warnings."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from uda.reports.charts import Series
from uda.utilities.reading import opened
from uda.utilities.sealed_json import line_values

NAME = "metrics.jsonl"
_LONGEST_LINE = 2**20  # bytes; an evaluation of 255 classes needs a twentieth
_LONGEST = 2**28  # bytes; 100,000 steps need a tenth
_WORDS = ("name_warning", "class_range_warning")  # of an evaluation


@dataclass(slots=True)
class RunLog:
    """What a run has recorded."""

    series: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    # (step, kind, text) of each, in the order of the run
    warnings: list[tuple[int, str, str]] = field(default_factory=list)
    damaged: int = 0  # lines that are none of ours: of a run that was killed while it wrote

    @property
    def last_step(self) -> int | None:
        """The last step of which there is anything; None for an empty log."""
        return max((int(line[-1][0]) for line in self.series.values()), default=None)

    @property
    def evaluations(self) -> int:
        """How often the run was evaluated."""
        return len(self.series.get("miou", ()))

    def below(self, *prefixes: str) -> dict[str, Series]:
        """The series whose names begin with one of `prefixes`, without these."""
        return {
            name.removeprefix(prefix): line
            for prefix in prefixes
            for name, line in self.series.items()
            if name.startswith(prefix)
        }


def read_log(folder: Path) -> RunLog:
    """The log of the run in `folder`; an empty one if it has none. A damaged line is counted, not
    read: the run may be writing it."""
    log = RunLog()
    try:
        with opened(folder / NAME) as file:
            while (line := file.readline(_LONGEST_LINE)) and file.tell() <= _LONGEST:
                _add(log, line)
            log.damaged += bool(line)  # a log without an end is none
    except OSError:  # none, or not ours to read
        return log
    return log


def _add(log: RunLog, line: bytes) -> None:
    try:
        entry = line_values(line)
        step = entry["step"]
    except (ValueError, KeyError, TypeError, RecursionError):
        log.damaged += 1
        return
    if not isinstance(step, int) or isinstance(step, bool) or not 0 <= step < 2**53:
        log.damaged += 1
        return
    for name, value in entry.items():
        if name == "step":
            continue
        if isinstance(value, str):
            if name.startswith("warning/") or name in _WORDS:
                log.warnings.append((step, name.removeprefix("warning/").replace("_", " "), value))
        elif isinstance(value, float | int) and not isinstance(value, bool) and _finite(value):
            series = log.series.setdefault(name, [])
            if not series or series[-1][0] < step:  # charts go from left to right
                series.append((step, float(value)))
    if "skipped" in entry:
        said = f"an update was skipped, the loss was not finite ({entry.get('losses')})"
        log.warnings.append((step, "skipped", said))


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def per_class(log: RunLog, prefix: str, names: Iterable[str]) -> Iterator[tuple[str, Series]]:
    """The series `<prefix>/<class>` of the classes that have one."""
    for name in names:
        line = log.series.get(f"{prefix}/{name}")
        if line:
            yield name, line
