"""Draft the TOML file that describes your data: %(prog)s DIR"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uda.commands.endings import print_facts, printable
from uda.commands.options import new_parser
from uda.data.drafts.draft import draft_description
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import require

_DEFAULT = "dataset.toml"


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder with images and labels, in sub-folders")
    add("--output", type=Path, metavar="FILE", help=f"default: DIR/{_DEFAULT}")
    add("--overwrite", action="store_true", help="replace the file if it exists")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    output = options.output or options.folder / _DEFAULT
    require(output.suffix == ".toml", f"--output {output}: give a name that ends in .toml")
    require(
        options.overwrite or not output.exists(),
        f"{output} exists already: choose another with --output, or add --overwrite",
    )
    draft = draft_description(options.folder, output)
    require(output.parent.is_dir(), f"--output {output}: give a file in a folder that exists")
    with replacing(output) as file:
        file.write(draft.text.encode())
    print_facts({"written": output} | draft.facts)
    for remark in draft.to_check:
        print(f"check: {printable(remark)}")
