"""uda COMMAND: one program for all commands.

A command's module is imported when the command is chosen: `uda --help` is there at once.
"""

import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from uda.commands.program import run


class _Command(NamedTuple):
    """A command, and its line in the help."""

    module: str  # below uda.commands; its `main(arguments, prog=...)` is called
    summary: str
    example: str  # what follows the name


_NETWORKS = {
    "train": _Command("train", "train a preset", "--preset toy_class_mix"),
    "eval": _Command("evaluate", "score a snapshot", "--restore-from snapshots/RUN/GTA5_500.pth"),
    "label": _Command("label", "label images", "--restore-from FILE --threshold 0.5"),
    "predict": _Command("predict", "segment a folder", "--restore-from FILE --images DIR"),
    "adapt": _Command("adapt", "adapt to a folder", "--restore-from FILE --images DIR"),
    "export": _Command("export", "write ONNX files", "--restore-from FILE --format onnx"),
    "convert": _Command("convert", "convert weights", "IN.pth OUT.pth"),
}
_TRANSLATIONS = {
    "train-translation": _Command("train_translation", "learn a look", "--preset toy_cyclegan"),
    "translate": _Command("translate", "apply it", "--dataset gta5 --output DIR"),
}
_RESULTS = {
    "runs": _Command("runs", "list the runs", "snapshots"),
    "report": _Command("report", "look at a run", "snapshots/RUN"),
    "compare": _Command("report", "compare runs", "snapshots/RUN_A snapshots/RUN_B"),
    "score": _Command("score", "score label maps", "PREDICTIONS --dataset dataset.toml"),
}
_DATA = {
    "check": _Command("data.check", "check every file of data sets", "--data-root data"),
    "report": _Command("data.report", "show data sets with their labels in a page", "NAME"),
    "describe": _Command(
        "data.describe", "draft the TOML file that describes your data", "my_images"
    ),
    "get-ready": _Command("data.get_ready", "say where a data set is to be had", "NAME"),
    "toy-city": _Command(
        "data.toy_city", "write a small synthetic data set", "--output data/toy_city"
    ),
    "prepare-vaihingen": _Command(
        "data.prepare_vaihingen",
        "cut ISPRS Vaihingen or Potsdam into tiles",
        "downloads/vaihingen --output data/Vaihingen",
    ),
    "prepare-fashionpedia": _Command(
        "data.prepare_fashionpedia",
        "write Fashionpedia or iMaterialist as label maps",
        "--annotations FILE --images DIR --output DIR",
    ),
    "prepare-densepose": _Command(
        "data.prepare_densepose",
        "write DensePose-COCO as label maps",
        "--annotations FILE --images DIR --output DIR",
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that `arguments`, or the command line, name; its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands: Mapping[str, _Command] = _NETWORKS | _TRANSLATIONS | _RESULTS
    prog = "uda"
    if given[:1] == ["data"]:
        commands, prog = _DATA, "uda data"
        del given[0]
    names = [*commands, *(["data"] if prog == "uda" else [])]
    if not given or given[0] in ("-h", "--help"):
        print(_help(prog))
        return 0 if given else 2
    if given[0] == "--version":
        import uda

        print(f"uda {uda.__version__}")
        return 0
    name, *rest = given
    if name not in commands:
        near = get_close_matches(name, names, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"choose from {', '.join(names)}"
        print(f"error: there is no command {name!a}; {hint} ({prog} --help)", file=sys.stderr)
        return 2
    return run(commands[name].module, rest, prog=f"{prog} {name}")


def _help(prog: str) -> str:
    """One screen: the commands by what they are for, each with an example."""
    if prog == "uda data":
        return "\n".join([_usage(prog), "", "Data sets", *_lines(_DATA, prog)])
    data = f"  {'data':<9}check, describe, toy-city and more  uda data --help"
    return "\n".join(
        [
            "Unsupervised domain adaptation for semantic segmentation.",
            _usage(prog),
            "",
            "Networks",
            *_lines(_NETWORKS, prog),
            "",
            "Images of one domain with the look of another",
            *_lines(_TRANSLATIONS, prog),
            "",
            "Data sets and results",
            data,
            *_lines(_RESULTS, prog),
            "",
            "In Python: uda.train, evaluate, predict, load and export; see docs/python.md.",
        ]
    )


def _usage(prog: str) -> str:
    return f"usage: {prog} COMMAND [options]    ({prog} COMMAND --help shows the options)"


def _lines(commands: Mapping[str, _Command], prog: str) -> list[str]:
    """Each command with its example, on a second line where names are long."""
    width = max(map(len, commands)) + 2
    texts = max(len(command.summary) for command in commands.values()) + 2
    end = ""
    if width > 20:
        texts, end = 0, "\n    "
    return [
        f"  {name:<{width}}{command.summary:<{texts}}{end}{prog} {name} {command.example}"
        for name, command in commands.items()
    ]
