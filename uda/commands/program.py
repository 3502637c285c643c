"""A command as a program: from its first import to its end, a signal is one line."""

from collections.abc import Sequence
from importlib import import_module

from uda.commands.remembered import with_memory
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
        return with_memory(main, module, arguments, prog)
