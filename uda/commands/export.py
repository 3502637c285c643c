"""Write a network as a file for other programs: %(prog)s --restore-from FILE

Normalization and resizing are inside: images as a camera gives them go in, labels of their size
come out. The file is compared with the network before it gets its name.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from uda.commands import choices
from uda.commands.endings import print_facts
from uda.commands.options import add_network_file, foreign_options, new_parser, size_from


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(
        __doc__,
        prog=prog,
        epilog="onnx needs the extra `onnx`: pip install 'uda[onnx]'.\n"
        "Exit status: 0; 2 when nothing was written, also because the file disagreed.",
    )
    add_network_file(parser.add_argument_group("network"))
    file = parser.add_argument_group("file")
    file.add_argument(
        "--format", choices=choices.FILE_FORMATS, default="onnx", help="default: onnx"
    )
    file.add_argument(
        "--output", metavar="OUT", type=Path, help="default: FILE with .onnx or .pt2 (torch)"
    )
    file.add_argument(
        "--size", metavar="WxH", type=size_from,
        help="size of all images (default: any, where the network can)",
    )  # fmt: skip
    file.add_argument(
        "--pixels", choices=choices.PIXELS, default="uint8",
        help="uint8: (N, H, W, 3) from 0 to 255; float: (N, 3, H, W) from 0 to 1; both RGB "
        "(default: uint8)",
    )  # fmt: skip
    file.add_argument(
        "--outputs", choices=choices.OUTPUTS, nargs="+", default=("labels",), help="default: labels"
    )
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    import torch

    from uda.prediction.opened import open_network
    from uda.prediction.portable import ExportOptions, export_network
    from uda.prediction.portable_formats import FORMATS

    options = ExportOptions(
        format=arguments.format,
        size=arguments.size,
        pixels=arguments.pixels,
        outputs=tuple(dict.fromkeys(arguments.outputs)),
    )
    source: Path = arguments.restore_from
    opened = open_network(
        source,
        device=torch.device("cpu"),
        weights=arguments.weights,
        foreign=foreign_options(arguments),
        code=arguments.code,
        data=False,
    )
    output = arguments.output or source.with_suffix(FORMATS[options.format].suffix)
    written = export_network(opened, output, snapshot=source, options=options)
    print_facts({"written": written.path, **written.facts})
