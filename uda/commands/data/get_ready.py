"""Where a data set is to be had, what to unpack where, and what of it is there:

%(prog)s              lists all data sets
%(prog)s NAME

Nothing is downloaded, and no file is opened: check_data.py does that. Exit status: 0, or 1 when
something is wrong with what is there, or nothing is.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from uda.commands.options import new_parser
from uda.data.doctor.findings import Finding, listed
from uda.data.samples import Layout
from uda.utilities.errors import require
from uda.utilities.terminal import printable


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a data set of this library")
    parser.add_argument(
        "--data-root", metavar="DIR", default="", help="default: the variable UDA_DATA"
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> int:
    options = parse_arguments(arguments, prog)
    from uda.data.described.layouts import is_described
    from uda.data.registry import data_root, layout_named

    root = None
    if options.data_root or os.environ.get("UDA_DATA", ""):
        root = data_root(options.data_root)
    if options.name is None:
        print(_list(root))
        return 0
    require(
        not is_described(options.name),
        f"{options.name}: a file of your own says itself where its data are; check them with "
        f"python scripts/check_data.py --dataset {options.name}",
    )
    layout = layout_named(options.name)
    print(_about(layout))
    if root is None:
        print("\nWhat of it is there: give --data-root DIR or set UDA_DATA")
        return 0
    text, status = _state(layout, root)
    print(f"\n{printable(text)}")
    return status


def _list(root: Path | None) -> str:
    """A line for each data set: its folder, whether that is there, and its classes."""
    from uda.data.registry import LAYOUTS

    rows = [("name", "folder", "there", "label space")]
    for layout in LAYOUTS.values():
        there = "?" if root is None else "yes" if _splits_there(layout, root) else "no"
        rows.append((layout.name, f"{layout.folder}/", there, layout.label_space.name))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    ending = "" if root is not None else "\n\nthere: give --data-root DIR or set UDA_DATA"
    return "\n".join(line.rstrip() for line in lines) + ending


def _about(layout: Layout) -> str:
    """Where it is to be had, and what it looks like when it is unpacked."""
    lines = [f"{layout.name}: {layout.label_space.num_classes} classes, {layout.label_space.name}"]
    if layout.download is not None:
        lines += [f"page: {layout.download.page}"]
        lines += [f"file: {file}" for file in layout.download.files]
        lines += [f"unpack: {layout.download.unpack}"]
    lines += [f"layout: {layout.folder}/ below the data root, with {layout.expected}"]
    for split in layout.splits:
        known = layout.known.get(split)
        counts = " or ".join(map(str, known.counts)) if known else "?"
        has_labels = layout.part(split).labels is not None and (
            known is None or known.labels != "none"
        )
        lines += [f"split {split}: {counts} images, {'with' if has_labels else 'without'} labels"]
    absent = [layout.label_space.classes[i] for i in _without_pixels(layout)]
    if absent:
        lines += [f"classes without pixels: {', '.join(absent)}"]
    return "\n".join(lines)


def _without_pixels(layout: Layout) -> list[int]:
    space = layout.label_space
    return sorted(set(range(space.num_classes)) - set(space.labeled))


def _splits_there(layout: Layout, root: Path) -> list[str]:
    from uda.data.listing import is_there

    folder = root / layout.folder
    return [split for split in layout.splits if is_there(layout, folder, split)]


def _state(layout: Layout, root: Path) -> tuple[str, int]:
    """What of the data set is below `root`, and the exit status."""
    from uda.data.doctor.listing import Wish, list_files_of
    from uda.data.toy_city.city import is_toy_city

    there = _splits_there(layout, root)
    if not there:
        return f"nothing of it is in {root / layout.folder}", 1
    lines, problems = [], 0
    for split in layout.splits:
        if split not in there:
            lines.append(f"{split}: not there")
            continue
        wish = Wish(layout=layout, split=split)
        listing, found = list_files_of(wish, root, genuine=not is_toy_city(root))
        labeled = sum(sample.labels is not None for sample in listing.samples)
        lines.append(f"{split}: {listing.images} images, {labeled} label files")
        lines += [_said(finding) for finding in found]
        problems += sum(finding.severity == "problem" for finding in found)
    if not problems:
        lines.append(
            "complete as far as names tell; python scripts/check_data.py --data-root "
            f"{root} --dataset {layout.name} reads the files"
        )
    return "\n".join(lines), 1 if problems else 0


def _said(finding: Finding) -> str:
    items = f": {listed(finding.items)}" if finding.items else ""
    return f"  {finding.severity}: {finding.text}{items}\n    fix: {finding.fix}"
