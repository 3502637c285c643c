"""Names of images and of their labels, told by patterns such as `images/{split}/{name}.jpg`.

    {split}   the split, or its folder
    {name}    one or more characters, slashes among them; once at most
    *  ?      any characters of one folder or file name; one of them
    **        any characters, slashes among them; `**/` also nothing at all

What a pattern's wildcards stand for tells one image from another. A pattern of labels has the same
wildcards in the same order, so the labels' place follows from the image's, and is not looked for.
"""

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from uda.utilities.errors import require, shown

_TOKEN = re.compile(r"\{name\}|\*\*/|\*\*|\*|\?")
_MEANING = {"{name}": "(.+)", "**/": "((?:.+/)?)", "**": "(.*)", "*": "([^/]*)", "?": "([^/])"}
_DEEP = re.compile(r"\*\*/|\*\*")
_SPLIT = "{split}"
_LONGEST = 1000  # characters
_MOST_STEPS = 2**17  # a millisecond; beyond, a slower way whose time grows with the length alone
_MOST_WILDCARDS = 8
_MOST_DEEP = 2  # of those that slashes match: each more makes matching slower by a path's length


class Pattern:
    """One pattern, relative to the folder of a data set."""

    def __init__(self, text: str, where: str) -> None:
        """Raises InputError, naming the key `where`, when `text` is not a valid pattern."""
        plain = _TOKEN.sub("", text.replace(_SPLIT, ""))
        require(
            0 < len(text) <= _LONGEST and text.isprintable() and not set(plain) & set("{}\\"),
            f"{where} is {shown(text)}; allowed: a path with slashes in which {{split}}, {{name}}, "
            "*, ** and ? stand for what differs",
        )
        require(
            not text.startswith(("/", "~")) and ".." not in PurePosixPath(text).parts,
            f"{where} is {shown(text)}; allowed: a path below root; set root to a folder above it",
        )
        require("//" not in text, f"{where} is {shown(text)}; allowed: single slashes")
        self.text = text
        self.wildcards: tuple[str, ...] = tuple(_TOKEN.findall(text))
        deep = sum(wildcard not in ("*", "?") for wildcard in self.wildcards)
        require(
            0 < len(self.wildcards) <= _MOST_WILDCARDS
            and deep <= _MOST_DEEP
            and self.wildcards.count("{name}") < 2,
            f"{where} is {shown(text)}; it needs {{name}} once, or one to {_MOST_WILDCARDS} of "
            f"*, ** and ?, {_MOST_DEEP} of them ** or {{name}}: they tell one image from another",
        )

        # The power of a path's length that the steps of a regular expression grow with.
        within = max(part.count("*") for part in _DEEP.sub("", text).split("/"))
        self._backtracking = deep + within

    @property
    def has_split(self) -> bool:
        return _SPLIT in self.text

    @property
    def literals(self) -> int:
        """How many characters are given: more make a pattern more particular."""
        return len(_TOKEN.sub("", self.text))

    @property
    def suffix(self) -> str:
        """What all names end with."""
        return re.split(r"[{}*?/]", self.text)[-1]

    def folder(self, split: str) -> str:
        """The part before the first wildcard, as far as it names folders; may be empty."""
        text = self.text.replace(_SPLIT, split)
        found = _TOKEN.search(text)
        assert found is not None, "a pattern has a wildcard"
        return text[: found.start()].rpartition("/")[0]

    def levels(self, split: str) -> int | None:
        """How many folders deep its files are below `folder`; None: at any depth."""
        if any(wildcard not in ("*", "?") for wildcard in self.wildcards):
            return None
        folder = self.folder(split)
        return self.text.replace(_SPLIT, split).removeprefix(folder).lstrip("/").count("/") + 1

    def match(self, path: str, split: str) -> tuple[str, ...] | None:
        """What the wildcards stand for in `path`; None when it does not match."""
        parts = _TOKEN.split(self.text.replace(_SPLIT, split))
        if len(path) ** self._backtracking > _MOST_STEPS:
            return _matched(path, parts, self.wildcards)
        meanings = [*(_MEANING[token] for token in self.wildcards), ""]
        expression = "".join(re.escape(p) + m for p, m in zip(parts, meanings, strict=True))
        found = re.fullmatch(expression, path, re.DOTALL)
        return None if found is None else found.groups()

    def write(self, values: Sequence[str], split: str) -> str:
        """The path in which the wildcards stand for `values`."""
        parts = _TOKEN.split(self.text.replace(_SPLIT, split))
        return "".join(p + v for p, v in zip(parts, [*values, ""], strict=True))


def _matched(path: str, parts: Sequence[str], wildcards: Sequence[str]) -> tuple[str, ...] | None:
    """What a regular expression finds, each wildcard as long as can be from left to right, in a
    time that grows with the length of `path` alone."""
    ends = bytearray(len(path) + 1)  # where the rest of the path matches the rest of the pattern
    ends[-1] = True
    after = []  # the same behind each wildcard
    for literal, wildcard in zip(reversed(parts[1:]), reversed(wildcards), strict=True):
        behind = bytearray(len(ends))
        place = path.find(literal)
        while place >= 0:
            behind[place] = ends[place + len(literal)]
            place = path.find(literal, place + 1)
        after.append(behind)
        ends = _before(path, behind, wildcard)
    place = len(parts[0])
    if not path.startswith(parts[0]) or not ends[place]:
        return None
    found = []
    for literal, wildcard in zip(parts[1:], wildcards, strict=True):
        stop = _longest(path, place, after.pop(), wildcard)
        found.append(path[place:stop])
        place = stop + len(literal)
    return tuple(found)


def _before(path: str, behind: bytearray, wildcard: str) -> bytearray:
    """Where a wildcard may begin that ends at one of the places `behind` it."""
    size = len(path)
    if wildcard == "?":
        return bytearray([*(path[n] != "/" and behind[n + 1] for n in range(size)), False])
    if wildcard == "**/":  # folders, or nothing
        ends = bytearray(behind[n] and n > 0 and path[n - 1] == "/" for n in range(size + 1))
        some = _through(path, ends, "")
        more = [some[n + 2] for n in range(size - 1)]
        return bytearray(a or b for a, b in zip(behind, [*more, False, False], strict=False))
    reached = _through(path, behind, "/" if wildcard == "*" else "")
    if wildcard != "{name}":
        return reached
    return bytearray([*reached[1:], False])


def _through(path: str, behind: bytearray, stop: str) -> bytearray:
    """From where one of the places `behind` is reached without a character `stop`, if any."""
    found = bytearray(behind)
    for place in range(len(path) - 1, -1, -1):
        found[place] |= path[place] != stop and found[place + 1]
    return found


def _longest(path: str, begin: int, behind: bytearray, wildcard: str) -> int:
    """The last of the places `behind` a wildcard that it may reach from `begin`."""
    if wildcard == "?":
        return begin + 1
    stop = path.find("/", begin) if wildcard == "*" else -1
    last = len(path) if stop < 0 else stop
    place = behind.rfind(1, begin + (wildcard == "{name}"), last + 1)
    while wildcard == "**/" and place > begin and (place < begin + 2 or path[place - 1] != "/"):
        place = behind.rfind(1, begin, place)
    return place


def is_folder(text: str) -> bool:
    """Whether `text` names one folder below another, for `{split}` to stand for."""
    leads_out = text.startswith(("/", "~")) or ".." in PurePosixPath(text).parts
    return bool(text) and text.isprintable() and not leads_out and not set(text) & set("{}*?\\")


def name_of(values: Sequence[str]) -> str:
    """What an image is called whose wildcards stand for `values`, such as aachen/aachen_000000."""
    return "/".join(filter(None, (value.strip("/") for value in values)))
