"""The members of a large JSON object one by one, without holding them all."""

import json
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import opened, why

_WINDOW = 2**20  # bytes decoded at a time; it grows for what is longer
_DECODER = json.JSONDecoder()
_SPACE = " \t\r\n"


class Span(NamedTuple):
    """The place of a value in a file, in bytes."""

    begin: int
    end: int


class JsonFile:
    """A JSON object on disk: the values of its keys, arrays element by element."""

    def __init__(self, path: Path) -> None:
        """Raises InputError when the file does not exist or is empty."""
        self.path = path
        try:
            with opened(path) as file:
                self._bytes = mmap(file.fileno(), 0, access=ACCESS_READ)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read ({why(error)})") from None

    def read(self, span: Span) -> Any:  # noqa: ANN401
        """The value at `span`; InputError when it is not UTF-8 text."""
        try:
            return json.loads(self._bytes[span.begin : span.end].decode())
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.path} is damaged at byte {span.begin} ({error})") from None

    def elements(self) -> Iterator[tuple[str, Span]]:
        """Each key with the place of its value, or of each element if the value is an array.

        Raises InputError, naming the file, if it is not a JSON object.
        """
        try:
            yield from self._elements(_Window(self._bytes))
        except (ValueError, RecursionError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"{self.path} is not a JSON object ({error}): the download may be incomplete"
            ) from None

    def _elements(self, window: "_Window") -> Iterator[tuple[str, Span]]:
        window.expect("{")
        while window.next() != "}":
            key = self.read(window.value())
            require(isinstance(key, str), f"{self.path}: {shown(key)} is not a key")
            window.expect(":")
            if window.next() == "[":
                window.expect("[")
                while window.next() != "]":
                    yield key, window.value()
                    window.separator("]")
                window.expect("]")
            else:
                yield key, window.value()
            window.separator("}")


class _Window:
    """A moving window of a file's bytes, as text of one character per byte."""

    def __init__(self, content: mmap) -> None:
        self._content = content
        self._begin = 0  # of the text, in the file
        self._place = 0  # in the text
        self._text = ""
        self._fill(_WINDOW)

    def next(self) -> str:
        """The next non-space character; ValueError at the end."""
        while True:
            while self._place < len(self._text) and self._text[self._place] in _SPACE:
                self._place += 1
            if self._place < len(self._text):
                return self._text[self._place]
            if self._begin + self._place >= len(self._content):
                raise ValueError("it ends too soon")
            self._fill(_WINDOW)

    def expect(self, character: str) -> None:
        """Skips `character`; ValueError when the next one differs."""
        if self.next() != character:
            raise ValueError(f"expected {character} at byte {self._begin + self._place}")
        self._place += 1

    def separator(self, closing: str) -> None:
        """Skips a comma, unless `closing` follows."""
        if self.next() != closing:
            self.expect(",")

    def value(self) -> Span:
        """Skips a value, which may be longer than the window, and returns its place."""
        self.next()
        length = _WINDOW
        while True:
            try:
                _, end = _DECODER.raw_decode(self._text, self._place)
                if end < len(self._text):  # a number could continue behind the window
                    break
                error = ValueError("a value that never ends")
            except ValueError as failed:
                error = failed
            if self._begin + len(self._text) >= len(self._content):
                raise error
            self._fill(length := 2 * length)
        span = Span(self._begin + self._place, self._begin + end)
        self._place = end
        return span

    def _fill(self, length: int) -> None:
        """From the present place on, `length` bytes; latin-1 has one character for each."""
        self._begin += self._place
        self._place = 0
        self._text = self._content[self._begin : self._begin + length].decode("latin-1")
