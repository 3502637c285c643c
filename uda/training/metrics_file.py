"""metrics.jsonl of a run that goes on: its lines, whole ones and damaged ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uda.utilities.atomic_files import replacing
from uda.utilities.errors import InputError
from uda.utilities.reading import read_bytes, why
from uda.utilities.sealed_json import line_values

_LONGEST = 2**28  # bytes of a log


def drop_lines_after(path: Path, step: int, *, unfinished: bool) -> None:
    """Keeps the lines up to `step`; if that step is unfinished, only its losses."""
    kept, damaged = [], 0
    for line, entry in entries_of(path):
        if entry is None:
            damaged += 1
            continue
        again = unfinished and entry["step"] == step and "protocol" in entry
        if entry["step"] <= step and not again:
            kept.append(line + "\n")
    if damaged > 1:  # one is what was being written when the run was killed
        print(f"{path}: {damaged} lines are damaged and were removed; the run itself is not")
    if path.exists():
        with replacing(path) as file:
            file.write("".join(kept).encode())


def entries_of(path: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """The lines of a log and what they say, None for damaged ones; nothing where there is none."""
    try:
        lines = read_bytes(path, _LONGEST).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({why(error)}): move it away, the run needs no log to go on"
        ) from None
    for line in lines:
        try:
            entry = line_values(line)
            yield line, entry if type(entry["step"]) is int else None
        except (ValueError, KeyError, RecursionError):
            yield line, None
