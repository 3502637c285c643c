"""Draft the TOML file that describes your data: %(prog)s DIR"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uda.commands.endings import print_facts
from uda.commands.options import new_parser
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import require
from uda.utilities.terminal import printable

_DEFAULT = "dataset.toml"


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder with images and labels, in sub-folders")
    add("--output", type=Path, metavar="FILE", help=f"default: DIR/{_DEFAULT}")
    add("--overwrite", action="store_true", help="replace the file if it exists")
    add("--picture", type=Path, metavar="FILE", help="also draw where each value lies (a PNG)")
    add("--classes-of", default="", metavar="NAME",
        help="for images without labels: the data set or TOML file with the classes")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    from uda.data.drafts.draft import draft_description, draw_values

    output = options.output or options.folder / _DEFAULT
    require(output.suffix == ".toml", f"--output {output}: give a name that ends in .toml")
    require(
        options.overwrite or not output.exists(),
        f"{output} exists already: choose another with --output, or add --overwrite",
    )
    if options.picture is not None:
        require(
            options.picture.suffix.lower() == ".png" and options.picture.parent.is_dir(),
            f"--picture {options.picture}: give a name that ends in .png, in a folder that exists",
        )
    draft = draft_description(options.folder, output, classes_of=options.classes_of)
    require(
        options.picture is None or draft.seen is not None,
        f"--picture: there are no labels below {options.folder} to draw: omit it",
    )
    require(output.parent.is_dir(), f"--output {output}: give a file in a folder that exists")
    with replacing(output) as file:
        file.write(draft.text.encode())
    print_facts({"written": output} | draft.facts)
    if options.picture is not None:
        draw_values(draft, options.picture)
        print(f"picture: {printable(str(options.picture))}")
    for remark in draft.to_check:
        print(f"check: {printable(remark)}")
