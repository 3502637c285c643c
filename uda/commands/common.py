"""What the commands share: how they fail, which device they use, how sizes are written."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from uda.evaluation.reports import fact_lines
from uda.training.signals import Stopped
from uda.utilities.distributed import is_main, leave_group, local_device
from uda.utilities.errors import InputError, require, shown


@contextmanager
def clear_errors() -> Iterator[None]:
    """What the user can mend ends the program with one line and status 2, without a traceback; a
    run that a signal has stopped in good order, with a line on how it goes on and status 0."""
    try:
        yield
    except Stopped as stopped:
        if is_main():
            print(stopped, flush=True)
        leave_group()
        sys.exit(0)
    except InputError as error:
        sys.exit(_fail(str(error), status=2))
    except FloatingPointError as error:
        sys.exit(_fail(str(error), status=1))
    except KeyboardInterrupt:  # where training does not listen itself
        sys.exit(_fail("interrupted", status=130))
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, *, status: int) -> int:
    print(f"error: {printable(' '.join(message.split()))}", file=sys.stderr)
    return status


def printable(text: str) -> str:
    """Without what a terminal would obey, or could not show: names of files are anybody's."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option --device."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device", default=default, help="cpu, cuda or cuda:N (default: %(default)s)"
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """--set, and the options that set a field by another name; in `arguments.set`, as they came."""
    for option, field, metavar, text in (
        ("--data-root", "data.root=", "DIR",
         "folder of the data sets (default: the preset's, then the variable UDA_DATA)"),
        ("--set", "", "FIELD=VALUE",
         "change a field of the preset, e.g. train.seed=1; may be repeated"),
        ("--restore-from", "train.initial_snapshot=", "FILE", "file the student starts from"),
        ("--skip-nonfinite", "train.skip_nonfinite=", "N",
         "leave out up to N steps whose loss is not finite (default: 0)"),
    ):  # fmt: skip
        parser.add_argument(
            option, dest="set", action="append", default=[], type=f"{field}{{}}".format,
            metavar=metavar, help=text,
        )  # fmt: skip


def root_among(overrides: Sequence[str]) -> str:
    """The data root that a person gave by `overrides` of fields; empty without one."""
    name = "data.root="
    given = [text.removeprefix(name) for text in overrides if text.startswith(name)]
    return given[-1] if given else ""


def device_named(name: str) -> torch.device:
    """The device called `name`, or this process's own GPU where torchrun started several.

    Raises InputError when torch does not know it or it is not there."""
    name = local_device(name)
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise InputError(f"--device {name}: {reason}; allowed: cpu, cuda, cuda:N") from None
    return device


def size_from(text: str) -> tuple[int, int]:
    """(height, width) of text such as 1024x512, which is width x height."""
    width, cross, height = text.lower().partition("x")
    whole = all(side.isascii() and side.isdecimal() for side in (width, height))
    if not cross or not whole or not int(width) * int(height):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write WIDTHxHEIGHT: 1024x512")
    return int(height), int(width)


def at_least(smallest: int) -> Callable[[str], int]:
    """What reads a whole number, `smallest` or more, from text."""

    def number(text: str) -> int:
        digits = text.isascii() and text.isdecimal() and len(text) < 19  # 64 bits
        if not digits or int(text) < smallest:
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is no whole number of {smallest} or more"
            )
        return int(text)

    return number


def positive(text: str) -> float:
    """The number above 0 that `text` spells."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """The number from 0 up to, not including, 1 that `text` spells."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def folder_of_run(run: str | None, preset: str) -> Path:
    """The folder below snapshots/ of the run called `run`, or after its `preset`.

    Raises InputError for a name that leads elsewhere; snapshots/ itself may be a link.
    """
    name = Path(preset.rpartition(":")[2]).stem if run is None else run
    odd = [p for p in name.split("/") if p.startswith(".") or not 0 < len(os.fsencode(p)) <= 200]
    require(
        not odd and name.isprintable() and "\\" not in name,
        f"--run {shown(name)}: a run lies below snapshots/; give a name such as aagc_seed1, or "
        "study/aagc_seed1",
    )
    return Path("snapshots") / name


def print_facts(facts: Mapping[str, object]) -> None:
    """One line for each, so that no score stands without them."""
    print("\n".join(fact_lines(facts)))
