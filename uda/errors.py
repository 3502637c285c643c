"""The one error that means: what you gave cannot be used."""

from collections.abc import Sequence


class InputError(ValueError):
    """Data, a preset, an override or a file from outside that cannot be used.

    The message is one line that says what came, what is allowed and what to do next. The commands
    print it and exit with status 2; any other exception is a defect of ours and has its traceback.
    """


class WriteError(InputError):
    """A file cannot be written: the disk is full, or the folder may only be read."""


def require(holds: bool, message: str) -> None:
    """Raises InputError with `message` unless the condition holds."""
    if not holds:
        raise InputError(message)


def require_share(name: str, value: float) -> None:
    """Raises InputError unless `value`, a share or a probability, is between 0 and 1."""
    require(0 <= value <= 1, f"{name} is {value}; allowed: 0 to 1")


def tally(names: Sequence[str]) -> str:
    """How many names there are and, if there are any, the first of them."""
    return f"{len(names)} ({names[0]}, ...)" if names else "0"
