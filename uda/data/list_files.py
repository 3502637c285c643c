"""Lists of the images of a split, in the forms in which people write them.

One image per line: its name, a file name, a path from the data set's folder or from anywhere, an
absolute path of another machine. Further columns (labels, numbers) after tabs, commas, semicolons
or spaces; a line of column names; quotes; comments after `#`; empty lines. A column called split
tells which lines belong to the split.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from uda.utilities.errors import InputError, require
from uda.utilities.reading import LARGE, csv_rows, read_text, why

_MOST_LINES = 2**20
_LONGEST_LINE = 2**16  # characters
_LINE_ENDS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"  # of str.splitlines
_SEPARATORS = ("\t", ",", ";")
_SPLIT_COLUMNS = ("split", "subset", "set", "fold", "partition")
LIST_SUFFIXES = (".txt", ".csv", ".tsv", ".lst")


class Entry(NamedTuple):
    """One line of a list."""

    line: int  # from 1
    columns: tuple[str, ...]
    whole: str  # the line; a name may have a space


def entries_of(path: Path, split: str) -> list[Entry]:
    """The lines of a list that belong to `split`; InputError when it cannot be read."""
    try:
        lines = list_lines(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({why(error)}): give a list of names") from None
    given = [(number, line.strip()) for number, line in enumerate(lines, 1)]
    given = [(number, line) for number, line in given if line and not line.startswith("#")]
    separator = next((s for s in _SEPARATORS if all(s in line for _, line in given)), None)
    found = [Entry(number, _columns(line, separator), line) for number, line in given]
    place = _split_column(found)
    if place is None:
        return found
    rows = [entry for entry in found[1:] if len(entry.columns) > place]
    return [entry for entry in rows if _is_of(entry.columns[place].lower(), split)]


def list_lines(path: Path) -> list[str]:
    """The lines of a list; OSError or ValueError when it cannot be read, or is too long."""
    text = read_text(path, LARGE)
    # Before they are made: an empty line takes as much memory as a hundred bytes of the file.
    if sum(map(text.count, _LINE_ENDS)) >= _MOST_LINES:
        raise ValueError(f"it has more than {_MOST_LINES} lines")
    lines = text.splitlines()
    longest = max(map(len, lines), default=0)
    if longest > _LONGEST_LINE:
        raise ValueError(f"it has a line of {longest} characters; allowed: {_LONGEST_LINE}")
    return lines


def _is_of(cell: str, split: str) -> bool:
    """Whether a cell such as training means the split."""
    return cell == split or (split in ("train", "val", "test") and cell.startswith(split))


def _columns(line: str, separator: str | None) -> tuple[str, ...]:
    if separator is None:
        return tuple(line.partition(" #")[0].split())
    return tuple(next(csv_rows([line], separator), ()))


def _split_column(found: Sequence[Entry]) -> int | None:
    """Which column says what split a line belongs to, by the names of the columns."""
    names = [name.lower() for name in found[0].columns] if found else []
    return next((names.index(name) for name in _SPLIT_COLUMNS if name in names[1:]), None)


class Images:
    """The images of a data set, found by what a list calls them."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        """`paths`: the path of each image, from the data set's folder, by its name."""
        self._paths = paths
        self._by_path = {path: name for name, path in paths.items()}
        self._by_stem: dict[str, list[str]] = {}
        for name, path in paths.items():
            for stem in {_stem(path), name.rpartition("/")[2]}:
                self._by_stem.setdefault(stem, []).append(name)

    def named(self, text: str) -> str | None:
        """The name of the image that is called `text`; None for none, or several."""
        text = text.replace("\\", "/").strip().removeprefix("./").strip("/")
        if text in self._paths:
            return text
        if text in self._by_path:
            return self._by_path[text]
        own = PurePosixPath(text).parts
        if not own:
            return None
        stem = own[-1]
        stems = dict.fromkeys((stem, _stem(stem)) if _is_picture(stem) else (stem,))
        found = dict.fromkeys(n for s in stems for n in self._by_stem.get(s, ()))
        if _is_picture(stem):  # another suffix is another file
            same = [n for n in found if self._paths[n].rpartition("/")[2] == stem]
            found = dict.fromkeys(same or [n for n in found if n.rpartition("/")[2] == _stem(stem)])
        shared = {n: _shared(own[:-1], PurePosixPath(self._paths[n]).parts[:-1]) for n in found}
        best = [n for n, count in shared.items() if count == max(shared.values())]
        return best[0] if len(best) == 1 else None

    def of(self, entry: Entry) -> str | None:
        """The name of the image that a line is about."""
        files = [text for text in entry.columns if _is_picture(text)]  # rather than numbers
        for text in (entry.whole, *files, *entry.columns):
            name = self.named(text.strip("'\""))
            if name is not None:
                return name
        return None


def listed_names(
    path: Path, split: str, paths: Mapping[str, str]
) -> tuple[dict[str, Entry], list[Entry]]:
    """The images that a list names, each with its line, and the lines that name none; a first line
    of column names is neither. `paths` as in `Images`.

    Raises InputError when it cannot be read, or names an image twice.
    """
    images, found, unknown = Images(paths), dict[str, Entry](), list[Entry]()
    for place, entry in enumerate(entries_of(path, split)):
        name = images.of(entry)
        if name is None:
            if place or not _is_header(entry):
                unknown.append(entry)
            continue
        require(
            name not in found,
            f"{path} lists {name!r} twice, in lines {found[name].line if name in found else 0} and "
            f"{entry.line}: remove one",
        )
        found[name] = entry._replace(columns=(name,)) if images.named(entry.whole) else entry
    return found, unknown


def other_labels(
    found: Mapping[str, Entry], label_of: Callable[[str], str]
) -> Iterator[tuple[Entry, str]]:
    """The lines whose second column is a label file of another name than the data set's own, which
    `label_of` says; with that."""
    for name, entry in found.items():
        pictures = [text for text in entry.columns[1:] if _is_picture(text)]
        own = label_of(name)
        if pictures and all(_file(text) != _file(own) for text in pictures):
            yield entry, own


def _is_header(entry: Entry) -> bool:
    return len(entry.columns) > 1 and not any(map(_is_picture, entry.columns))


def _shared(own: Sequence[str], other: Sequence[str]) -> int:
    """How many folders two paths share, counted from their ends."""
    count = 0
    for one, two in zip(reversed(own), reversed(other), strict=False):
        if one != two:
            break
        count += 1
    return count


def _file(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _stem(path: str) -> str:
    file = _file(path)
    return file.rpartition(".")[0] or file


def _is_picture(text: str) -> bool:
    return PurePosixPath(text).suffix.lower() in (
        ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm"
    )  # fmt: skip
