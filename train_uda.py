"""Trains a preset: python train_uda.py --preset aagc_640x360_b2_student"""

import argparse
from pathlib import Path

from experiments import list_presets, load_preset
from experiments.published import print_comparison
from uda.cli import add_device, clear_errors, device_named, print_scores
from uda.data.registry import layout_named
from uda.engine import train
from uda.plain import apply_override


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", metavar="NAME", help="the experiment to run")
    what.add_argument("--list", action="store_true", help="show the presets and exit")
    parser.add_argument(
        "--data-root", metavar="DIR",
        help="folder of the data sets (default: the preset's, then the variable UDA_DATA)",
    )  # fmt: skip
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE",
        help="change a field of the preset, e.g. train.seed=1; may be repeated",
    )  # fmt: skip
    parser.add_argument("--restore-from", metavar="FILE", help="snapshot the student starts from")
    parser.add_argument("--run", metavar="NAME", help="folder in snapshots/ (default: the preset)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    add_device(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    with clear_errors():
        if arguments.list:
            print(list_presets())
            return
        experiment = load_preset(arguments.preset)
        overrides = list(arguments.set)
        if arguments.data_root is not None:
            overrides.append(f"data.root={arguments.data_root}")
        if arguments.restore_from is not None:
            overrides.append(f"train.initial_snapshot={arguments.restore_from}")
        for override in overrides:
            apply_override(experiment, override)
        scores = train(
            experiment,
            Path("snapshots") / (arguments.run or arguments.preset),
            preset=arguments.preset,
            device=device_named(arguments.device),
            resume=arguments.resume,
        )
        print_comparison(scores, arguments.preset, experiment.train.steps, experiment.evaluation)
        print_scores(scores, layout_named(experiment.evaluation.dataset).label_space)


if __name__ == "__main__":
    main()
