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


_LONGEST_SIDE = 32768  # pixels: of the largest images that anybody segments, four times


def require_size(name: str, size: tuple[int, int]) -> None:
    """Raises InputError unless both sides of `size`, (height, width) in pixels, can be had."""
    require(
        all(0 < side <= _LONGEST_SIDE for side in size),
        f"{name} is {size}; allowed: height, width above 0 and up to {_LONGEST_SIDE}",
    )


def shown(value: object, longest: int = 80) -> str:
    """How a message quotes `value`, which may be as long and as odd as its author liked: what a
    terminal would obey is escaped, and the middle of long ones is left out."""
    try:
        text = repr(value)
    except Exception:  # a number too long to be written, a dict that holds itself too deeply
        return f"a {type(value).__name__} that cannot be written"
    return shortened(ascii(text)[1:-1] if not text.isprintable() else text, longest)


def shortened(text: str, longest: int = 80) -> str:
    """`text` without its middle when it has more than `longest` characters."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def tally(names: Sequence[str]) -> str:
    """How many names there are and, if there are any, the first of them."""
    return f"{len(names)} ({names[0]}, ...)" if names else "0"
