"""What programs print: text that a terminal shows and does not obey, whatever its encoding.

Names of files, classes and runs come from outside and can hold anything. They all pass here, since
everything that is printed, by whatever way, is written to these streams.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO, cast

from uda.utilities.errors import WriteError


def printable(text: str) -> str:
    """`text` as one line, with everything escaped that a terminal would obey or could not show."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def printable_lines(text: str, kept: str = "\n\t") -> str:
    """The same for a text of several lines, which stay lines; tabs, or what else is `kept`, stay,
    too."""
    if text.isprintable():
        return text
    return "".join(c if c in kept else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    return character if character.isprintable() else ascii(character)[1:-1]


@contextmanager
def plain_streams() -> Iterator[None]:
    """Within it, what is printed has no control characters but ends of lines, tabs and, on standard
    error, a progress bar's carriage returns; and no character that the terminal's encoding lacks.

    A standard stream that is closed leads nowhere. Writing and flushing raise WriteError when
    standard output cannot be written, and BrokenPipeError when nobody reads it any more.
    """
    if isinstance(sys.stdout, _Plain) and isinstance(sys.stderr, _Plain):
        yield
        return
    _reserve_descriptors()
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        out = _Plain(before[0] or nowhere, is_error=False)
        sys.stdout = cast(TextIO, out)
        sys.stderr = cast(TextIO, _Plain(before[1] or nowhere, is_error=True))
        try:
            yield
        finally:
            with suppress(WriteError, BrokenPipeError):  # after another error
                out.flush()
            sys.stdout, sys.stderr = before


def _reserve_descriptors() -> None:
    """Opens what is closed of the standard streams: the next file to be opened would become one,
    and hold what libraries print."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)


class _Plain:
    """A text stream that writes harmless text to another."""

    def __init__(self, stream: TextIO, *, is_error: bool) -> None:
        self._stream = stream
        self._is_error = is_error

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self._stream, name)
        return found

    def write(self, text: str) -> int:
        """Returns the number of characters, as they were given."""
        shown = printable_lines(text, "\n\t\r" if self._is_error else "\n\t")
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        if not shown.isascii():
            shown = shown.encode(encoding, "backslashreplace").decode(encoding)
        with self._errors():
            self._stream.write(shown)
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """As `write`, one after the other."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Raises as `plain_streams` says."""
        with self._errors():
            self._stream.flush()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _give_up(self._stream)
            if self._is_error:  # there is nowhere to say it
                return
            if isinstance(error, BrokenPipeError):
                raise
            raise WriteError(
                f"standard output cannot be written ({error.strerror}): free some space, or send "
                "it to another place; files that were written are whole"
            ) from None


def _give_up(stream: TextIO) -> None:
    """Sends what a stream still holds nowhere: Python would try again, and fail, at its end."""
    with suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
