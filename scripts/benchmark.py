"""How fast this library is, compared with a plain PyTorch loop and with what the machine can do.

python scripts/benchmark.py --only training --rounds 1
python scripts/benchmark.py --quick

All in one run and as ratios, ours and the other in turns, because machines are noisy. About 40
minutes on two CPU cores. `make benchmark` writes docs/performance.md and docs/performance.json.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmark_data import FULL, QUICK, measure_loader, write_city
from benchmark_evaluation import IMAGES, measure_evaluation
from benchmark_limits import measure_limits
from benchmark_report import Figure, Row, machine, markdown, plain_values
from benchmark_training import measure_processes, measure_training
from uda.commands.endings import clear_errors
from uda.commands.options import add_device, at_least
from uda.utilities.atomic_files import write_text_whole
from uda.utilities.distributed import device_named
from uda.utilities.errors import InputError

DOCS = Path(__file__).resolve().parent.parent / "docs"
PARTS = ("training", "processes", "loader", "evaluation", "limits")
_TITLE = "# Performance\n\nWritten by `make benchmark` (scripts/benchmark.py). "
_HOW = """\
Ours and what it is compared with are measured in turns; figures are medians over the rounds, the \
ratio is that of the figures shown, followed by the range of the single rounds' ratios: of seven \
rounds it holds the median of all that could be measured with a probability of 98 %. \
What makes the difference and where the rest goes: [speed.md](speed.md).
"""
_NOT_FOR_COMPARISON = "Made with --quick, on toys: not for comparison.\n"


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add_device(parser)
    add("--rounds", type=at_least(1), metavar="N", help="of each part (default: 7, 1 if --quick)")
    add("--only", nargs="+", choices=PARTS, default=PARTS, help="omit the other parts")
    add("--images", type=at_least(1), metavar="N",
        help=f"that are scored and labeled (default: {IMAGES}, 2 if --quick)")  # fmt: skip
    add("--quick", action="store_true", help="tiny network and images, to try the script itself")
    add("--json", type=Path, metavar="FILE", help="also write all figures there")
    add("--markdown", type=Path, metavar="FILE", help="also write the tables there")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    for path in (options.json, options.markdown):
        if options.quick and path is not None and DOCS in path.resolve().parents:
            raise InputError(
                f"{path}: --quick is not precise enough for the documentation; write elsewhere"
            )
    device = device_named(options.device)
    rounds = options.rounds or (1 if options.quick else 7)
    found = measure(
        options.only,
        device=device,
        rounds=rounds,
        quick=options.quick,
        images=options.images or (2 if options.quick else IMAGES),
    )
    facts = machine(device)
    lead = _NOT_FOR_COMPARISON if options.quick else ""
    text = f"{_TITLE}{lead}{_HOW}\n{markdown(found, facts | {'rounds': rounds})}"
    print(text, end="")
    if options.markdown is not None:
        write_text_whole(options.markdown, text)
    if options.json is not None:
        values = plain_values(
            found, {"comparable": not options.quick, "machine": facts, "rounds": rounds}
        )
        write_text_whole(options.json, json.dumps(values, indent=1) + "\n")


def measure(
    parts: Sequence[str], *, device: torch.device, rounds: int, quick: bool, images: int
) -> list[Row | Figure]:
    """The rows of these parts, in the order of PARTS; `images`: that are scored and labeled."""
    found: list[Row | Figure] = []
    extent = QUICK if quick else FULL
    if "training" in parts:
        found += measure_training(device=device, rounds=rounds, quick=quick, say=_say)
    if "processes" in parts:
        found += measure_processes(device=device, rounds=rounds, quick=quick, say=_say)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if "loader" in parts:
            _say("writing images")
            write_city(root, extent)
            found += measure_loader(root, extent, rounds=rounds, say=_say)
        if "evaluation" in parts:
            found += measure_evaluation(
                root / "streets", device=device, images=images, rounds=rounds, quick=quick, say=_say
            )
    if "limits" in parts:
        found += measure_limits(device=device, rounds=rounds, quick=quick, say=_say)
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    with clear_errors():
        main()
