"""How commands end: with scores and their facts, or with one line that says what to fix."""

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from uda.labels.spaces import LabelSpace
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.errors import InputError
from uda.utilities.interrupts import Interrupted, Stopped, listening
from uda.utilities.terminal import plain_streams, printable

if TYPE_CHECKING:
    from uda.evaluation.metrics import Scores

_OF_SYSTEM = "give a path that exists and that you may use, then repeat the command"


@contextmanager
def clear_errors() -> Iterator[None]:
    """What the user can fix ends the program with one line and status 2, without a traceback. A
    run that a signal has stopped in good order ends with a line on how to resume and status 0; any
    other program with one line and the status of the signal. What is printed meanwhile is harmless
    text; see `uda/utilities/terminal.py`."""
    with plain_streams():
        try:
            with listening() as listener:
                try:
                    yield
                except Exception as error:
                    if listener.heard is not None:  # a library has made another error of it
                        raise listener.heard from error
                    raise
            sys.stdout.flush()  # what cannot be printed is told, too
        except Stopped as stopped:
            from uda.utilities.distributed import is_main, leave_group

            if is_main():
                print(stopped, flush=True)
            leave_group()
            sys.exit(0)
        except InputError as error:
            sys.exit(_fail(*error.problems, status=2))
        except FloatingPointError as error:
            sys.exit(_fail(str(error), status=1))
        except BrokenPipeError:  # the reader of our output, e.g. `head`, has ended
            sys.exit(1)
        except OSError as error:
            # A path that the system refused: too long, without permission, on a broken disk.
            path = "" if error.filename is None else f"{os.fsdecode(error.filename)}: "
            sys.exit(_fail(f"{path}{error.strerror or error}: {_OF_SYSTEM}", status=2))
        except Interrupted as interrupted:  # where training does not listen itself
            sys.exit(_fail(str(interrupted), status=interrupted.status))
        except KeyboardInterrupt:  # in a thread that cannot listen
            sys.exit(_fail("interrupted", status=130))


def _fail(*problems: str, status: int) -> int:
    """Prints one line for each problem, numbered if there are several."""
    lines = [printable(" ".join(problem.split())) for problem in problems]
    if len(lines) > 1:
        numbered = (f"{number}. {line}" for number, line in enumerate(lines, 1))
        lines = [f"{len(lines)} problems:", *numbered]
    print("error: " + "\n  ".join(lines), file=sys.stderr)
    return status


def print_facts(facts: Mapping[str, object]) -> None:
    """One line for each, so that no score is printed without them."""
    from uda.evaluation.reports import fact_lines

    print("\n".join(map(printable, fact_lines(facts))))


def publish(
    scores: "Scores",
    label_space: LabelSpace,
    facts: Mapping[str, object],
    options: argparse.Namespace,
    *,
    aside: str = "",
    aside_facts: Mapping[str, object] | None = None,
) -> None:
    """Prints the scores with their facts in the format asked for, and writes the JSON file.

    `aside`: whole lines to print before the scores, in formats made for reading; `aside_facts`:
    the same for formats made for programs.
    """
    from uda.evaluation.report_formats import HOLDS_FACTS, format_scores
    from uda.evaluation.reports import unscored_fact
    from uda.utilities.distributed import is_main

    absent = {"absent": ", ".join(scores.absent)} if scores.absent else {}
    absent |= unscored_fact(scores, label_space.report_names)
    all_facts = {**facts, **absent, **(aside_facts or {})}
    if options.format not in HOLDS_FACTS:
        print_facts(facts if options.format == "log" else {**facts, **absent})  # log has them
        print(aside, end="")
    print(format_scores(options.format, scores, label_space, all_facts))
    if options.json is not None and is_main():
        write_text_whole(options.json, format_scores("json", scores, label_space, all_facts) + "\n")
