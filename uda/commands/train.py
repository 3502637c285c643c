"""Train a preset: %(prog)s --preset aagc_640x360_b2_student"""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from uda.commands.endings import clear_errors
from uda.commands.options import add_device, add_overrides, folder_of_run, new_parser, root_among
from uda.experiments import load_preset
from uda.experiments.listed import list_presets
from uda.utilities.errors import require

if TYPE_CHECKING:
    import torch


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", metavar="NAME", help="a listed one, or FILE.py:NAME")
    what.add_argument("--list", action="store_true", help="show the presets and exit")
    add_overrides(parser)
    parser.add_argument(
        "--smoke",
        action="store_true",
        help="train 10 steps only; schedules and start steps follow",
    )
    parser.add_argument(
        "--preflight",
        action="store_true",
        help="make a few steps on generated images, print their memory and time, and exit",
    )
    parser.add_argument(
        "--sanity-check",
        action="store_true",
        help="train on the first batch of source images and score the same images",
    )
    parser.add_argument("--run", metavar="NAME", help="folder in snapshots/ (default: the preset)")
    parser.add_argument(
        "--resume", nargs="?", const=True, default=False, type=Path, metavar="PATH",
        help="continue an interrupted run; with a path, from that copy of its resume.pth",
    )  # fmt: skip
    parser.add_argument(
        "--code-changed", action="store_true",
        help="with --resume: the classes in the preset's file have changed, continue with them",
    )  # fmt: skip
    parser.add_argument(
        "--data-changed", action="store_true",
        help="with --resume: images or labels have changed, continue with them",
    )  # fmt: skip
    add_device(parser)
    return parser.parse_args(arguments)


def main(given: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    arguments = parse_arguments(given, prog)
    if arguments.list:
        if os.environ.get("RANK", "0") == "0":
            print(list_presets())
        return
    from uda.data.registry import datasets_of, layout_named, refuse_unused_root
    from uda.evaluation.report_formats import format_scores
    from uda.experiment import validate
    from uda.experiments.overrides import change
    from uda.experiments.published import compare, note_on_name
    from uda.training.loop import train
    from uda.utilities.distributed import device_named, process_group

    with clear_errors(), process_group(device_named(arguments.device)) as device:
        if arguments.preflight:
            print(_preflight(arguments, device))
            return
        loaded = load_preset(arguments.preset)
        changed = change(
            loaded, arguments.set, smoke=arguments.smoke, sanity_check=arguments.sanity_check
        )
        experiment, remarks = validate(loaded, typed=changed.typed)
        scored = experiment.evaluation
        used = datasets_of(experiment.data)
        used = [scored.dataset, *used] if scored.every or not used else used
        refuse_unused_root(root_among(arguments.set), used)
        space = layout_named(used[0]).label_space  # a file may be another after days
        preset, folder = arguments.preset, folder_of_run(arguments.run, arguments.preset)
        for kind in filter(partial(getattr, arguments), ("smoke", "sanity_check")):
            preset = f"{preset} ({kind.replace('_', ' ')})"
            folder = folder.with_name(f"{folder.name}_{kind}") if arguments.run is None else folder
        scores = train(
            experiment,
            folder,
            preset=preset,
            device=device,
            resume=arguments.resume,
            resume_with=resume_command(sys.argv),
            remarks=[*filter(None, [note_on_name(arguments.preset)]), *changed.remarks, *remarks],
            code_changed=arguments.code_changed,
            data_changed=arguments.data_changed,
        )
        name = shlex.quote(str(folder))
        print(f"look at it: uda report {name}; compare it: uda compare {name} ANOTHER_RUN")
        if not scored.every:
            print("nothing was scored: evaluation.every is 0")
            return
        print(compare(scores, preset, experiment.train.steps, scored).text, end="")
        print(format_scores("log", scores, space, {}))


def _preflight(arguments: argparse.Namespace, device: "torch.device") -> str:
    """What a few steps of the preset take; InputError with an option that asks for a run."""
    from uda.experiment import validate
    from uda.experiments.overrides import change
    from uda.training.preflight import preflight

    for option in ("resume", "run", "code_changed", "data_changed", "smoke", "sanity_check"):
        require(
            not getattr(arguments, option),
            f"--preflight makes no run: omit --{option.replace('_', '-')}",
        )
    loaded = load_preset(arguments.preset)
    changed = change(loaded, arguments.set)
    experiment, remarks = validate(loaded, typed=changed.typed)
    lines = [f"remark: {remark}" for remark in (*changed.remarks, *remarks)]
    lines.append(f"preset           {arguments.preset}")
    return "\n".join([*lines, preflight(experiment, device=device)])


def resume_command(arguments: Sequence[str]) -> str:
    """The command that resumes the run of a program with these `arguments` (its name first)."""
    program, *rest = [*_without_resume(arguments), "--resume"]
    path = Path(program)
    installed = path.name == "uda"  # the console command
    as_module = path.parts[-2:] == ("uda", "__main__.py")
    local, world = os.environ.get("LOCAL_WORLD_SIZE"), os.environ.get("WORLD_SIZE")
    if local is None and installed:
        launcher = "uda"
    elif installed or as_module:
        launcher = f"{_launcher(local, world)} -m uda"
    else:
        launcher = f"{_launcher(local, world)}{' --' if local else ''} {shlex.quote(program)}"
    return f"{launcher} {shlex.join(rest)}"


def _launcher(local: str | None, world: str | None) -> str:
    """What starts as many processes as there are: `local` ones of `world` on this machine."""
    if local is None:
        return "python"
    count = f"--nproc-per-node {local}" if local == world else f"(on {world} processes, as before)"
    return f"torchrun {count}"


def _without_resume(arguments: Sequence[str]) -> list[str]:
    """The arguments without `--resume`, its path, if it had one, and what is said once only."""
    kept: list[str] = []
    dropping = False
    for argument in arguments:
        value, dropping = dropping and not argument.startswith("-"), argument == "--resume"
        once = argument == "--data-changed" or argument.startswith("--resume=")
        if not (value or dropping or once):
            kept.append(argument)
    return kept
