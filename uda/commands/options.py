"""The options that commands share, and how their values are written."""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uda.commands import choices
from uda.utilities.errors import MOST_WORKERS, require, shown

if TYPE_CHECKING:
    import torch

    from uda.checkpoints.foreign import ForeignOptions
    from uda.prediction.opened import OpenedNetwork


class _Help(argparse.RawDescriptionHelpFormatter):
    """Descriptions as they are written, and option names in a narrow column."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)


def new_parser(
    description: str | None, *, prog: str | None, epilog: str | None = None
) -> argparse.ArgumentParser:
    """A parser for the command `prog`, by default the script that Python runs.

    The description is a module's docstring; `%(prog)s` in it stands for the command.
    """
    return argparse.ArgumentParser(
        prog=prog, description=description, epilog=epilog, formatter_class=_Help
    )


# --- values


def size_from(text: str) -> tuple[int, int]:
    """(height, width) of text such as 1024x512, which is width x height."""
    width, cross, height = text.lower().partition("x")
    whole = all(side.isascii() and side.isdecimal() for side in (width, height))
    if not cross or not whole or not int(width) * int(height):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write WIDTHxHEIGHT: 1024x512")
    return int(height), int(width)


def at_least(smallest: int, most: int = 2**63 - 1) -> Callable[[str], int]:
    """A function that reads a whole number, from `smallest` to `most`, from text."""

    def number(text: str) -> int:
        digits = text.isascii() and text.isdecimal() and len(text) < 19  # 64 bits
        if not digits or int(text) < smallest:
            raise argparse.ArgumentTypeError(
                f"{shown(text)} is not a whole number of {smallest} or more"
            )
        if int(text) > most:
            raise argparse.ArgumentTypeError(f"{text} is too many; allowed: up to {most}")
        return int(text)

    return number


def own_cores() -> int:
    """The cores that this process may use; where the system does not tell, those of the machine."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def positive(text: str) -> float:
    """The number above 0 that `text` spells."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """The number from 0 up to, not including, 1 that `text` spells."""
    value = float(text)
    if not 0 <= value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


# --- presets


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """--set, and the options that set a field by another name; in `arguments.set`, as given."""
    for option, field, metavar, text in (
        ("--data-root", "data.root=", "DIR",
         "folder of the data sets (default: the preset's, then the variable UDA_DATA)"),
        ("--set", "", "FIELD=VALUE",
         "change a field of the preset, e.g. train.seed=1; may be repeated"),
        ("--restore-from", "train.initial_snapshot=", "FILE",
         "file with the student's initial weights"),
        ("--skip-nonfinite", "train.skip_nonfinite=", "N",
         "skip up to N steps whose loss is not finite (default: 0)"),
    ):  # fmt: skip
        parser.add_argument(
            option, dest="set", action="append", default=[], type=f"{field}{{}}".format,
            metavar=metavar, help=text,
        )  # fmt: skip


def root_among(overrides: Sequence[str]) -> str:
    """The data root that `overrides` of fields set; empty without one."""
    name = "data.root="
    given = [text.removeprefix(name) for text in overrides if text.startswith(name)]
    return given[-1] if given else ""


def folder_of_run(run: str | None, preset: str) -> Path:
    """The folder below snapshots/ of the run called `run`, or after its `preset`.

    Raises InputError for a name that leads elsewhere; snapshots/ itself may be a link.
    """
    name = Path(preset.rpartition(":")[2]).stem if run is None else run
    odd = [p for p in name.split("/") if p.startswith(".") or not 0 < len(os.fsencode(p)) <= 200]
    require(
        not odd and name.isprintable() and "\\" not in name,
        f"--run {shown(name)}: a run is a folder below snapshots/; give a name such as aagc_seed1, "
        "or study/aagc_seed1",
    )
    return Path("snapshots") / name


# --- networks


_Parser = argparse.ArgumentParser | argparse._ArgumentGroup


def add_device(parser: _Parser) -> None:
    """The option --device."""
    parser.add_argument(
        "--device", help="cpu, cuda or cuda:N (default: cuda where there is one, else cpu)"
    )


def add_foreign_options(parser: _Parser) -> None:
    """The options on a file of another project."""
    parser.add_argument(
        "--partial", metavar="NAME", nargs="+", default=(),
        help="tensors of another project's network that the file may lack: names, or beginnings",
    )  # fmt: skip
    parser.add_argument(
        "--ignore", metavar="NAME", nargs="+", default=(),
        help="tensors of such a file that its network has no use for: names, or how they begin",
    )  # fmt: skip
    parser.add_argument(
        "--project", metavar="NAME",
        help="whose file it is, where its tensors do not tell: adaptsegnet, advent, ...",
    )  # fmt: skip
    parser.add_argument(
        "--output-stride", type=int, choices=(8, 16),
        help="of another project's network (default: by the file's name, or the usual one)",
    )  # fmt: skip


def foreign_options(arguments: argparse.Namespace) -> "ForeignOptions":
    """The values of `add_foreign_options`."""
    from uda.checkpoints.foreign import ForeignOptions

    return ForeignOptions(
        partial=arguments.partial,
        ignore=arguments.ignore,
        project=arguments.project,
        output_stride=arguments.output_stride,
    )


def add_network_file(network: _Parser) -> None:
    """The options that say which network: a file, and what is needed to open it."""
    network.add_argument(
        "--restore-from", required=True, metavar="FILE", type=Path,
        help="snapshot of a run, or a file of another project",
    )  # fmt: skip
    add_foreign_options(network)
    network.add_argument(
        "--code", metavar="FILE.py", type=Path,
        help="your Python file that defines the network of FILE; it is run",
    )  # fmt: skip
    network.add_argument(
        "--weights", choices=("student", "teacher"), default="student", help="default: student"
    )


def add_network_options(
    parser: argparse.ArgumentParser, *, data_sets: bool = True, several: bool = False
) -> None:
    """The options of every command that applies a snapshot's network to images, of data sets if
    `data_sets`, and of `several` at once."""
    network = parser.add_argument_group("network")
    add_network_file(network)
    network.add_argument(
        "--adapt-bn", metavar="IMAGES", type=Path,
        help="first re-estimate batch norm on unlabeled images: a folder, or a data set's name",
    )  # fmt: skip
    add_device(network)
    network.add_argument(
        "--workers",
        metavar="N",
        type=at_least(0, MOST_WORKERS),
        default=2,
        help="loader processes (default: 2)",
    )
    if data_sets:
        data = parser.add_argument_group("data set")
        data.add_argument(
            "--data-root", metavar="DIR", help="folder of the data sets (default: the snapshot's)"
        )
        data.add_argument(
            "--dataset", metavar="NAME", nargs="+" if several else None,
            help="a data set or a TOML file's path (default: the snapshot's)"
            + ("; several are scored one by one, with the mean over them" if several else ""),
        )  # fmt: skip
    _add_protocol(parser.add_argument_group("protocol"))


def _add_protocol(parser: _Parser) -> None:
    """The options that say what a network sees of an image; the others change the first."""
    parser.add_argument("--protocol", choices=choices.PROTOCOLS, help="default: the snapshot's")
    parser.add_argument("--input-size", metavar="WxH", type=size_from, help="resize images to this")
    parser.add_argument(
        "--interpolation", choices=choices.INTERPOLATIONS, help="by which images are resized"
    )
    parser.add_argument(
        "--scales", metavar="S", type=positive, nargs="+", help="average over these input scales"
    )
    parser.add_argument("--flip", action="store_true", help="average over mirror images as well")
    parser.add_argument(
        "--window", metavar="WxH", type=size_from, help="slide a window of this size over the image"
    )
    parser.add_argument(
        "--overlap", metavar="SHARE", type=share, help="of neighboring windows (default: 0)"
    )
    parser.add_argument(
        "--precision", choices=choices.PRECISIONS,
        help="of the network's forward pass (default: the snapshot's, float32)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", metavar="N", type=at_least(1),
        help="images, windows and mirror images of one size that share a forward pass (default: "
        "the snapshot's, 1)",
    )  # fmt: skip


def network_from(
    arguments: argparse.Namespace, device: "torch.device", *, target: bool = False
) -> "OpenedNetwork":
    """The network that the options of `add_network_options` ask for, see `open_network`."""
    from uda.prediction.opened import open_network

    changes: dict[str, Any] = {
        name: value
        for name in ("input_size", "interpolation", "window", "overlap", "precision", "batch")
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.scales is not None:
        changes["scales"] = tuple(arguments.scales)
    if arguments.flip:
        changes["flip"] = True
    return open_network(
        arguments.restore_from,
        device=device,
        weights=arguments.weights,
        foreign=foreign_options(arguments),
        code=arguments.code,
        protocol=arguments.protocol,
        changes=changes,
        adapt_bn=arguments.adapt_bn,
        data=hasattr(arguments, "data_root"),
        data_root=getattr(arguments, "data_root", None),
        dataset=_first_dataset(getattr(arguments, "dataset", None)),
        target=target,
    )


def _first_dataset(given: str | Sequence[str] | None) -> str | None:
    """The data set that the network is opened for: of several, one below the data root, if any."""
    from uda.data.described.layouts import is_described

    if given is None or isinstance(given, str):
        return given
    return next((name for name in given if not is_described(name)), given[0])


# --- scores


def add_json(parser: _Parser) -> None:
    """The option --json; see `check_json`."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write the scores to FILE")


def check_json(target: Path | None) -> None:
    """Raises InputError, before hours of work, when --json names a file that cannot be written."""
    require(
        target is None or (target.parent.is_dir() and not target.is_dir()),
        f"--json {target}: give a file in a folder that exists",
    )
