"""What may be opened, and how much is read of it: one answer for every reader of files.

A pipe would be waited for, a device read without an end, and a file can be larger than memory. All
that is wrong with a path or a file is an OSError or a ValueError here; each reader says what to do.
"""

import csv
import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from uda.utilities.errors import InputError, shortened, shown

SMALL, LARGE = 2**20, 2**26  # bytes: of settings and descriptions; of lists and records


def opened(path: Path) -> BufferedReader:
    """The file `path`, open for reading, links followed.

    Raises OSError when it is no regular file, such as a pipe, a device or a folder, does not exist
    or cannot be read, also for names that no file can have.
    """
    try:
        _require_regular(path, path.stat())  # opening a device can do something
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except ValueError as error:  # a NUL in the name
        raise OSError(errno.EINVAL, str(error), ascii(str(path))) from None
    try:
        _require_regular(path, os.fstat(descriptor))  # another may be there meanwhile
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def _require_regular(path: Path, found: os.stat_result) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def read_bytes(path: Path, most: int) -> bytes:
    """The content of a file of up to `most` bytes; OSError when it is larger, or as in `opened`."""
    with opened(path) as file:
        content = file.read(most + 1)  # a size that the system tells may be 0, or change
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", str(path))
    return content


def read_text(path: Path, most: int, encoding: str = "utf-8-sig") -> str:
    """The text of a file of up to `most` bytes; OSError as `read_bytes`, ValueError when it is
    not text of this encoding."""
    try:
        return read_bytes(path, most).decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8 text (byte {error.start})") from None


def read_json(path: Path, most: int) -> Any:  # noqa: ANN401  # what JSON can hold
    """The JSON in a file of up to `most` bytes; OSError as `read_bytes`, and ValueError when it is
    none, nested too deeply, names a key twice or has what is no number of JSON, such as NaN."""
    return parsed_json(read_bytes(path, most))


def parsed_json(text: str | bytes) -> Any:  # noqa: ANN401  # what JSON can hold
    """What a text of JSON says; ValueError as in `read_json`."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise ValueError(f"it has the key {shown(counts.most_common(1)[0][0])} twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def csv_rows(lines: Iterable[str], separator: str = ",") -> Iterator[list[str]]:
    """The cells of each line of a table, without spaces around them; ValueError when it is none."""
    try:
        for row in csv.reader(lines, delimiter=separator, skipinitialspace=True):
            yield [cell.strip() for cell in row]
    except csv.Error as error:
        raise ValueError(str(error)) from None


def whole_number(cell: str) -> int | None:
    """The whole number that a cell holds, of up to 18 digits; None if it holds something else."""
    text = cell.strip()
    digits = text.removeprefix("-")
    return int(text) if digits.isascii() and digits.isdigit() and len(digits) <= 18 else None


def color_in(cells: Sequence[str]) -> tuple[int, int, int] | None:
    """The color whose three numbers the cells hold; None if they hold something else."""
    if len(cells) != 3:
        return None
    red, green, blue = map(whole_number, cells)
    return None if red is None or green is None or blue is None else (red, green, blue)


def why(error: Exception) -> str:
    """What was wrong with a file, in one short line without its path, which the message has."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return shortened(" ".join(text.split()), 200)


def real(path: Path) -> Path:
    """Where `path` leads, links followed, whether or not it exists; of links that lead to each
    other, one of them. `Path.resolve` raises RuntimeError for these before Python 3.13."""
    return Path(os.path.realpath(path))


def expanded(path: Path, where: str = "a path") -> Path:
    """`path` with the home folder that a leading ~ stands for; InputError, naming `where` it was
    given, when there is no such user."""
    try:
        return path.expanduser()
    except RuntimeError:
        raise InputError(
            f"{where} is {path}, but there is no user {path.parts[0][1:]} here: write the folder "
            "out, or ./~... for a file of that name"
        ) from None
