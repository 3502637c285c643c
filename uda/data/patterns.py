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
_SPLIT = "{split}"
_LONGEST = 1000  # characters
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
        meanings = [*(_MEANING[token] for token in self.wildcards), ""]
        expression = "".join(re.escape(p) + m for p, m in zip(parts, meanings, strict=True))
        found = re.fullmatch(expression, path)
        return None if found is None else found.groups()

    def write(self, values: Sequence[str], split: str) -> str:
        """The path in which the wildcards stand for `values`."""
        parts = _TOKEN.split(self.text.replace(_SPLIT, split))
        return "".join(p + v for p, v in zip(parts, [*values, ""], strict=True))


def is_folder(text: str) -> bool:
    """Whether `text` names one folder below another, for `{split}` to stand for."""
    leads_out = text.startswith(("/", "~")) or ".." in PurePosixPath(text).parts
    return bool(text) and text.isprintable() and not leads_out and not set(text) & set("{}*?\\")


def name_of(values: Sequence[str]) -> str:
    """What an image is called whose wildcards stand for `values`, such as aachen/aachen_000000."""
    return "/".join(filter(None, (value.strip("/") for value in values)))
