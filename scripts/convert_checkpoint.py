"""Writes a snapshot of ours from a file that --restore-from opens, or that torch refuses.

python scripts/convert_checkpoint.py GTA2Cityscapes_multi.pth adaptsegnet.pth

A file that holds more than tensors and plain values, such as numbers of numpy or a class's options,
could run code when loaded. Its tensors are read here without running any; the rest is left out.
"""

import argparse
from pathlib import Path

from uda.cli import clear_errors, print_facts
from uda.errors import require
from uda.snapshots import load, save, snapshot_values


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", metavar="IN", type=Path, help="file of ours or of another project")
    add("output", metavar="OUT", type=Path, help="new file, a snapshot for --restore-from")
    drawn = "tensors that may be missing and are drawn at random: names, or how they begin"
    add("--partial", metavar="NAME", nargs="+", default=[], help=drawn)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    options = parse_arguments(arguments)
    output: Path = options.output
    require(not output.exists(), f"{output} exists already: give another name for OUT")
    require(output.parent.is_dir(), f"{output.parent} is no folder: make it, or give another OUT")
    snapshot = load(options.source, partial=options.partial, recover=True)
    snapshot.build()  # refuses what would be refused when OUT is used
    save(snapshot_values(snapshot), output)
    facts = {"snapshot": output, "network": snapshot.preset} | snapshot.report
    print_facts(facts | {"supervision": snapshot.supervision})


if __name__ == "__main__":
    with clear_errors():
        main()
