"""The one error that means: what you gave cannot be used."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

# Where `require` notes what is wrong instead of raising; see Problems.part.
_noted: ContextVar[list[str] | None] = ContextVar("_noted", default=None)


class InputError(ValueError):
    """Data, a preset, an override or a file from outside that cannot be used.

    Each argument is one problem, in one line: what was given, what is allowed, what to do next. The
    commands print them and exit with status 2. Any other exception is a bug and has its traceback.
    """

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each problem."""
        return tuple(map(str, self.args))

    def __str__(self) -> str:
        if len(self.args) < 2:
            return super().__str__()
        numbered = (f"{number}. {problem}" for number, problem in enumerate(self.problems, 1))
        return f"{len(self.args)} problems: {' '.join(numbered)}"


class WriteError(InputError):
    """A file cannot be written: the disk is full, or the folder is read-only."""


def require(holds: bool, message: str) -> None:
    """Raises InputError with `message` unless the condition holds."""
    if holds:
        return
    noted = _noted.get()
    if noted is None:
        raise InputError(message)
    if message not in noted:
        noted.append(message)


class Problems:
    """Collects everything that is wrong with one input, so that it is told at once."""

    def __init__(self) -> None:
        self.found: list[str] = []

    @contextmanager
    def part(self) -> Iterator[None]:
        """Within it, a `require` that fails is noted, and the checks after it are made as well.

        An InputError that is raised is noted, too. Any other exception after a noted problem is
        taken for its consequence; one without a noted problem is raised.
        """
        before = len(self.found)
        token = _noted.set(self.found)
        try:
            yield
        except InputError as error:
            self.found += [problem for problem in error.problems if problem not in self.found]
        except Exception:
            if len(self.found) == before:
                raise
        finally:
            _noted.reset(token)

    def raise_all(self) -> None:
        """Raises InputError with every problem found, if there is one."""
        if self.found:
            raise InputError(*self.found)


def require_share(name: str, value: float) -> None:
    """Raises InputError unless `value`, a share or a probability, is between 0 and 1."""
    require(0 <= value <= 1, f"{name} is {value}; allowed: 0 to 1")


MOST_WORKERS = 1024  # loader processes
_LONGEST_SIDE = 32768  # pixels: four times that of the largest images in use


def require_size(name: str, size: tuple[int, int]) -> None:
    """Raises InputError unless both sides of `size`, (height, width) in pixels, are in range."""
    require(
        all(0 < side <= _LONGEST_SIDE for side in size),
        f"{name} is {size}; allowed: height, width above 0 and up to {_LONGEST_SIDE}",
    )


def shown(value: object, longest: int = 80) -> str:
    """`value` as a message quotes it, whatever its length and content: control characters are
    escaped, and the middle of a long text is left out."""
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
