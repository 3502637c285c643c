"""What the commands share: how they fail, which device they use, how sizes are written."""

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from uda.data.labels import LabelSpace
from uda.data.registry import data_root
from uda.errors import InputError
from uda.evaluation import EvaluationConfig, adapt_batch_norm
from uda.metrics import Scores
from uda.models.segmenter import Segmenter
from uda.reports import absent_line, iou_lines
from uda.snapshots import Snapshot
from uda.snapshots import load as load_snapshot


@contextmanager
def clear_errors() -> Iterator[None]:
    """What the user can mend ends the program with one line and status 2, without a traceback."""
    try:
        yield
    except InputError as error:
        sys.exit(_fail(str(error), status=2))
    except FloatingPointError as error:
        sys.exit(_fail(str(error), status=1))
    except BrokenPipeError:  # the reader of our output, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _fail(message: str, *, status: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return status


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option --device."""
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument(
        "--device", default=default, help="cpu, cuda or cuda:N (default: %(default)s)"
    )


def device_named(name: str) -> torch.device:
    """The device called `name`; InputError when torch does not know it or it is not there."""
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
    if not cross or not width.isdecimal() or not height.isdecimal() or not int(width) * int(height):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write WIDTHxHEIGHT: 1024x512")
    return int(height), int(width)


def add_network_options(parser: argparse.ArgumentParser) -> None:
    """The options of every command that shows images to a snapshot's network."""
    parser.add_argument(
        "--restore-from", required=True, metavar="FILE", type=Path, help="snapshot of train_uda.py"
    )
    parser.add_argument(
        "--weights", choices=("student", "teacher"), default="student", help="default: student"
    )
    parser.add_argument(
        "--data-root", metavar="DIR", help="folder of the data sets (default: the snapshot's)"
    )
    parser.add_argument(
        "--input-size", metavar="WxH", type=size_from, help="images are resized to this"
    )
    parser.add_argument(
        "--scales", metavar="S", type=positive, nargs="+", help="average over these input scales"
    )
    parser.add_argument("--flip", action="store_true", help="average over mirror images, too")
    parser.add_argument(
        "--adapt-bn", metavar="FOLDER", type=Path,
        help="first re-estimate batch norm on the unlabeled images below FOLDER",
    )  # fmt: skip
    parser.add_argument(
        "--workers", metavar="N", type=at_least(0), default=2, help="loader processes (default: 2)"
    )
    add_device(parser)


@dataclass(frozen=True, slots=True)
class OpenedNetwork:
    """A snapshot's network, ready to look at images, and what to say of its results."""

    segmenter: Segmenter
    snapshot: Snapshot
    config: EvaluationConfig
    root: Path  # of the data sets
    facts: dict[str, object]  # what every result is published with


def open_network(arguments: argparse.Namespace) -> OpenedNetwork:
    """What the options of `add_network_options` ask for; InputError when it cannot be had."""
    snapshot = load_snapshot(arguments.restore_from)
    config = snapshot.evaluation
    if arguments.input_size is not None:
        config.input_size = arguments.input_size
    if arguments.scales is not None:
        config.scales = tuple(arguments.scales)
    config.flip = config.flip or arguments.flip
    root = data_root(arguments.data_root or snapshot.data.root)
    segmenter = snapshot.build(arguments.weights).to(device_named(arguments.device))
    batch_norm = "as trained"
    if arguments.adapt_bn is not None:
        batch_norm = adapt_batch_norm(segmenter, arguments.adapt_bn, config)
    facts: dict[str, object] = {
        "snapshot": str(arguments.restore_from),
        "preset": snapshot.preset,
        "step": snapshot.step,
        "weights": arguments.weights,
        "supervision": snapshot.supervision,
        "initial_weights": snapshot.initial_weights,
        "batch_norm": batch_norm,
    }
    return OpenedNetwork(segmenter, snapshot, config, root, facts)


def at_least(smallest: int) -> Callable[[str], int]:
    """What reads a whole number, `smallest` or more, from text."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text} is no whole number of {smallest} or more")
        return int(text)

    return number


def positive(text: str) -> float:
    """The number above 0 that `text` spells."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def print_scores(scores: Scores, label_space: LabelSpace) -> None:
    """The table in the experiment log's format, after a line on the classes that it leaves out."""
    if scores.absent:
        print(absent_line(scores))
    print(iou_lines(scores, label_space.report_names))


def print_facts(facts: Mapping[str, object]) -> None:
    """One line for each, so that no score stands without them."""
    for name, value in facts.items():
        print(f"{name.replace('_', ' ')}: {value}")
