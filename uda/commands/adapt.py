"""Adapt a trained network to images without labels: %(prog)s --restore-from FILE --images FOLDER

docs/adapt.md is a guide for those who have never done it.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uda.commands import choices
from uda.commands.endings import clear_errors, print_facts
from uda.commands.options import (
    add_device,
    add_network_file,
    at_least,
    foreign_options,
    new_parser,
    positive,
)
from uda.commands.train import resume_command
from uda.utilities.errors import MOST_WORKERS, require
from uda.utilities.locks import sole_writer


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    own = choices.adaptation_methods()
    parser = new_parser(
        __doc__,
        prog=prog,
        epilog="Exit status: 0, also when the old network was kept because the new one was no "
        "better.",
    )
    add_network_file(parser.add_argument_group("network"))
    data = parser.add_argument_group("images")
    data.add_argument(
        "--images", required=True, metavar="FOLDER", type=Path,
        help="folder with the images (PNG, JPEG, TIFF, BMP, WebP) at any depth; no label is read",
    )  # fmt: skip
    data.add_argument(
        "--source", metavar="NAME",
        help="data set with labels of the same classes, such as the one that the network was "
        "trained on: methods of the ladder become possible, such as --method class-mix",
    )  # fmt: skip
    data.add_argument("--data-root", metavar="DIR", default="", help="folder of the data sets")
    data.add_argument(
        "--validate", metavar="NAME",
        help="data set with labels to score both networks on; nothing is chosen by it",
    )  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument(
        "--method", nargs="+", default=[choices.AUTO], metavar="M",
        help=f"stages in this order, such as: batch-norm self-training; a+b learn together. Known: "
        f"{', '.join(own)}; with --source also the ladder's. {choices.AUTO}: those of "
        f"{', '.join(choices.AUTOMATIC)} that fit and that the criteria call better (default)",
    )  # fmt: skip
    how.add_argument(
        "--minutes", type=positive, default=10.0, metavar="N",
        help="for everything (default: 10)",
    )  # fmt: skip
    how.add_argument(
        "--steps", type=at_least(1), metavar="N",
        help="of each stage that learns (default: as many as fit into the minutes)",
    )  # fmt: skip
    how.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="default: 0")
    how.add_argument(
        "--even-if-worse", action="store_true",
        help="keep the new network even if the criteria call it worse",
    )  # fmt: skip
    result = parser.add_argument_group("result")
    result.add_argument(
        "--output", metavar="DIR", type=Path,
        help="new folder, or one that the same command has begun: it is continued (default: "
        "snapshots/adapted/FOLDER)",
    )  # fmt: skip
    result.add_argument(
        "--workers",
        metavar="N",
        type=at_least(0, MOST_WORKERS),
        default=2,
        help="loader processes (default: 2)",
    )
    result.add_argument(
        "--data-changed", action="store_true",
        help="continue a stage that was begun although images or labels have changed",
    )  # fmt: skip
    add_device(result)
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    from uda.adaptation.adapt import Adaptation
    from uda.adaptation.request import Request
    from uda.data.described.layouts import plain_name
    from uda.data.registry import layout_named
    from uda.prediction.opened import open_network
    from uda.reports.adaptation import adapt_report
    from uda.training.tracking import progress_bar
    from uda.utilities.distributed import device_named, process_group, world_size

    with clear_errors(), process_group(device_named(arguments.device)) as device:
        require(world_size() == 1, "uda adapt works in one process: start it without torchrun")
        require(
            choices.AUTO not in arguments.method or len(arguments.method) == 1,
            f"--method {' '.join(arguments.method)}: {choices.AUTO} chooses the "
            "stages: give it alone",
        )
        images = str(arguments.images)
        images = images if "/" in images else f"./{images}"
        layout_named(images)  # refuses what is no folder of images
        output = arguments.output or Path("snapshots/adapted") / plain_name(
            arguments.images, otherwise="images"
        )
        network = open_network(
            arguments.restore_from,
            device=device,
            weights=arguments.weights,
            foreign=foreign_options(arguments),
            code=arguments.code,
            data=False,
        )
        request = Request(
            file=arguments.restore_from,
            images=images,
            methods=tuple(arguments.method),
            minutes=arguments.minutes,
            steps=arguments.steps,
            source=arguments.source,
            data_root=arguments.data_root,
            scored_on=arguments.validate,
            code=arguments.code,
            seed=arguments.seed,
            workers=arguments.workers,
            even_if_worse=arguments.even_if_worse,
            data_changed=arguments.data_changed,
        )
        with sole_writer(output, another="--output DIR"):
            record = Adaptation(
                network=network,
                request=request,
                output=output,
                device=device,
                command=resume_command(sys.argv).removesuffix(" --resume"),
                bar=lambda items, total, name: progress_bar(items, total=total, description=name),
            ).run()
            page = adapt_report(output)
        _tell(record.values, output)
        print(f"report: {page}")


def _tell(found: Mapping[str, Any], output: Path) -> None:
    """What came of it, in a few lines."""
    from uda.adaptation.record import ADAPTED

    for warning in found["warnings"]:
        print(f"warning: {warning}")
    kept = [stage["name"] for stage in found["stages"] if stage["kept"]]
    facts: dict[str, object] = {
        "result": f"adapted by {', '.join(kept)}" if kept else "the old network is kept",
        "network": output / ADAPTED,
    }
    scores = found["scores"]
    if scores is not None:
        old, new = (f"{100 * scores[name]['miou']:.2f}" for name in ("old", "new"))
        facts["mIoU"] = f"{old} before, {new} after, on {scores['dataset']} (not used to choose)"
    print_facts(facts)
    print(f"use it: uda predict --restore-from {output / ADAPTED} --images FOLDER")
    print(found["undo"])
