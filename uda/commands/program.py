"""A command as a program: from its first import to its end, a signal is one line."""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from uda.utilities.errors import InputError
from uda.utilities.interrupts import ending_at_once
from uda.utilities.terminal import plain_streams


def run(module: str, arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    """The exit status of the command in `uda.commands.<module>`, which reads `arguments` or the
    command line; `prog`: its name in its help. Ends the program where there is a problem."""

    def main() -> int:
        command = import_module(f"uda.commands.{module}").main
        from uda.commands.endings import clear_errors

        with clear_errors():
            return command(arguments, prog=prog) or 0

    with plain_streams(), ending_at_once():
        try:
            _check_current_folder()
            return main()
        except InputError as error:  # others are told by `clear_errors`
            print(f"error: {error}", file=sys.stderr)
            return 2


def _check_current_folder() -> None:
    """Without one, libraries end the program in words of their own."""
    try:
        Path.cwd()
    except OSError:
        raise InputError(
            "the current folder has been removed: change to one, then repeat"
        ) from None
