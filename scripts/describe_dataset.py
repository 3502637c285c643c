"""Drafts the TOML file that describes your data: python scripts/describe_dataset.py DIR"""

import argparse
from pathlib import Path

from uda.commands.common import clear_errors, print_facts, printable
from uda.data.drafts.draft import draft_description
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import require

_DEFAULT = "dataset.toml"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR", help="folder with images and labels, in sub-folders")
    add("--output", type=Path, metavar="FILE", help=f"default: DIR/{_DEFAULT}")
    add("--overwrite", action="store_true", help="replace the file if it is there")
    return parser.parse_args()


def main() -> None:
    options = parse_arguments()
    output = options.output or options.folder / _DEFAULT
    require(output.suffix == ".toml", f"--output {output}: give a name that ends in .toml")
    require(
        options.overwrite or not output.exists(),
        f"{output} is there already: choose another with --output, or say --overwrite",
    )
    draft = draft_description(options.folder, output)
    require(output.parent.is_dir(), f"--output {output}: give a file in a folder that exists")
    with replacing(output) as file:
        file.write(draft.text.encode())
    print_facts({"written": output} | draft.facts)
    for remark in draft.to_check:
        print(f"check: {printable(remark)}")


if __name__ == "__main__":
    with clear_errors():
        main()
