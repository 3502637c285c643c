"""A file that says which class each value or color in label files means.

JSON: `{"0": "road", "1": null}` or `{"0": 0, "1": 255}`, from values to classes, or
`{"road": [0, 7]}`, from classes to values, or a list of `{"id": 0, "name": "road"}`. CSV: lines of
a value and a class, or of a color's three numbers and a class, in any order, or of two numbers, the
value and the class; a first line of column names. A class is its name or its place in
`[[classes]]`; no class is `null`, an empty name, `ignore`, 255 or -1.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import csv_rows, parsed_json, read_text, whole_number, why

Code = int | tuple[int, int, int]
_LARGEST = 2**22  # bytes; 65536 values need a quarter of it
_NO_CLASS = ("", "ignore", "ignored", "void", "none", "null")
_IDS = ("id", "value", "raw_id", "label")
_NAMES = ("name", "class", "class_name", "trainId", "train_id")


def read_mapping(path: Path, names: Sequence[str]) -> dict[Code, int]:
    """The train id of each value or color, 255 for those of no class, by a file whose name ends in
    .json or .csv; `names`: of the classes.

    Raises InputError, naming the file, for one that cannot be read, an unknown class, and a value
    of two classes.
    """
    readers: dict[str, Callable[[str, Path], Iterator[tuple[Code, object]]]] = {
        ".json": _of_json, ".csv": _of_csv
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"mapping {path}: allowed: a name that ends in {' or '.join(readers)}")
    found: dict[Code, int] = {}
    for code, meant in reader(mapping_text(path), path):
        train_id = _class(meant, names, path)
        require(
            found.setdefault(code, train_id) == train_id,
            f"mapping {path}: {shown(code)} means two classes: keep one",
        )
    require(bool(found), f"mapping {path} has no value")
    kinds = {isinstance(code, int) for code in found}
    require(len(kinds) == 1, f"mapping {path} has values and colors: keep one kind")
    return found


def mapping_text(path: Path) -> str:
    """The content of such a file; InputError when it cannot be read."""
    try:
        return read_text(path, _LARGEST)
    except (OSError, ValueError) as error:
        raise InputError(f"mapping {path} cannot be read ({why(error)}): fix it") from None


def _of_json(text: str, path: Path) -> Iterator[tuple[Code, object]]:
    try:
        content = parsed_json(text)
    except ValueError as error:
        raise InputError(f"mapping {path} cannot be read as JSON ({why(error)}): fix it") from None
    if isinstance(content, list):
        for entry in content:
            yield _listed(entry, path)
        return
    require(isinstance(content, dict), f"mapping {path} is neither a table nor a list: fix it")
    for key, meant in content.items():
        if isinstance(meant, list):  # from a class to its values
            for value in meant:
                yield _code(value, path), key
        else:
            yield _code(key, path), meant


def _listed(entry: Any, path: Path) -> tuple[Code, object]:  # noqa: ANN401  # what JSON can hold
    keys = entry if isinstance(entry, dict) else {}
    code = next((keys[key] for key in _IDS if key in keys), None)
    meant = next((key for key in _NAMES if key in keys), None)
    if code is None or meant is None:
        raise InputError(
            f"mapping {path}: {shown(entry)}; allowed: an entry with one of {', '.join(_IDS)} and "
            f"one of {', '.join(_NAMES)}"
        )
    return _code(code, path), keys[meant]


def _of_csv(text: str, path: Path) -> Iterator[tuple[Code, object]]:
    try:
        rows = list(csv_rows(text.splitlines()))
    except ValueError as error:
        raise InputError(f"mapping {path} cannot be read as CSV ({why(error)}): fix it") from None
    for number, cells in enumerate(rows, 1):
        numbers = [n for n in map(whole_number, cells) if n is not None]
        words = [cell for cell in cells if whole_number(cell) is None]
        if not any(cells) or (number == 1 and not numbers):
            continue
        if len(words) == 1 and len(numbers) in (1, 3):
            yield _code(numbers if numbers[1:] else numbers[0], path), words[0]
        elif not words and len(numbers) == 2:
            yield _code(numbers[0], path), numbers[1]
        else:
            raise InputError(
                f"mapping {path}, line {number}: {shown(','.join(cells))}; allowed: a value or a "
                "color's three numbers, and a class"
            )


def _code(given: object, path: Path) -> Code:
    """A value of up to 16 bits or an RGB color, as a number, text or three numbers."""
    if isinstance(given, str):
        number = whole_number(given)
        given = given if number is None else number
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given <= 65535:
        return given
    if isinstance(given, list) and len(given) == 3:
        red, green, blue = given
        if all(isinstance(level, int) and 0 <= level <= 255 for level in given):
            return red, green, blue
    raise InputError(
        f"mapping {path}: {shown(given)} is neither a value, 0 to 65535, nor a color, [R, G, B]"
    )


def _class(meant: object, names: Sequence[str], path: Path) -> int:
    if meant is None or (isinstance(meant, str) and meant.lower() in _NO_CLASS):
        return IGNORE_INDEX
    if isinstance(meant, str) and meant in names:
        return names.index(meant)
    if isinstance(meant, int) and (0 <= meant < len(names) or meant in (-1, IGNORE_INDEX)):
        return IGNORE_INDEX if meant in (-1, IGNORE_INDEX) else meant
    known = suggest(meant, names) if isinstance(meant, str) else f"0 to {len(names) - 1}, or 255"
    raise InputError(f"mapping {path}: there is no class {shown(meant)}; {known}")
