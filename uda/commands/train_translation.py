"""Train a translation of one domain into another: %(prog)s --preset toy_cyclegan"""

import argparse
import inspect
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from uda.commands.endings import clear_errors
from uda.commands.options import add_device, folder_of_run, new_parser
from uda.commands.train import resume_command
from uda.utilities.config_tree import apply_override, suggest
from uda.utilities.errors import Problems, require, shown

if TYPE_CHECKING:
    from uda.translation.config import Translation

_SMOKE = 10  # steps


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", metavar="NAME")
    what.add_argument("--list", action="store_true", help="show the presets and exit")
    parser.add_argument(
        "--data-root", dest="set", action="append", default=[], type="data.root={}".format,
        metavar="DIR",
        help="folder of the data sets (default: the preset's, then the variable UDA_DATA)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="change a field of the preset, e.g. train.seed=1; may be repeated",
    )  # fmt: skip
    parser.add_argument("--smoke", action="store_true", help=f"make {_SMOKE} steps only")
    parser.add_argument("--run", metavar="NAME", help="folder in snapshots/ (default: the preset)")
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument(
        "--data-changed", action="store_true",
        help="with --resume: images have changed, continue with them",
    )  # fmt: skip
    add_device(parser)
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    from uda.experiments.translations import TRANSLATIONS
    from uda.translation.trainer import train_translation
    from uda.utilities.distributed import device_named, process_group

    with clear_errors(), process_group(device_named(arguments.device)) as device:
        if arguments.list:
            print("\n".join(f"{n:<34}{_first_line(f)}" for n, f in TRANSLATIONS.items()))
            return
        name = arguments.preset
        require(
            name in TRANSLATIONS,
            f"{shown(name)} is not a preset of a translation; {suggest(name, TRANSLATIONS)}",
        )
        translation = TRANSLATIONS[name]()
        _change(translation, arguments.set)
        folder = folder_of_run(arguments.run, name)
        if arguments.smoke:
            train = translation.train
            train.steps, train.log_every, train.epochs = _SMOKE, 1, max(train.epochs, _SMOKE)
            name = f"{name} (smoke)"
            folder = folder if arguments.run else folder.with_name(f"{folder.name}_smoke")
        path = train_translation(
            translation,
            folder,
            preset=name,
            device=device,
            resume=arguments.resume,
            data_changed=arguments.data_changed,
            resume_with=resume_command(sys.argv),
        )
        print(f"written: {path}; translate with: uda translate --restore-from {path}")


def _change(translation: "Translation", overrides: Sequence[str]) -> None:
    problems = Problems()
    for override in overrides:
        with problems.part():
            apply_override(translation, override)
    problems.raise_all()


def _first_line(function: object) -> str:
    return (inspect.getdoc(function) or "").split("\n")[0]
