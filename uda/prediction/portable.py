"""Networks as files for programs without this library: ONNX, and programs of torch.export.

What a file computes is compared with the network before the file gets its name.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, get_args

import torch

from uda.evaluation.protocols import Protocol, Size, input_line
from uda.prediction.opened import OpenedNetwork
from uda.prediction.portable_checks import Check, Reference, references
from uda.prediction.portable_formats import FORMATS, Format, FormatName, Runner
from uda.prediction.portable_network import (
    INPUTS,
    OUTPUTS,
    OutputName,
    PixelKind,
    PortableNetwork,
    Program,
)
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import InputError, require, require_size
from uda.utilities.version import __version__
from uda.utilities.weight_files import identity, reason


class Exported(NamedTuple):
    """A file that was written, and what is said of it."""

    path: Path
    facts: dict[str, object]
    checks: tuple[Check, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportOptions:
    """What a file is to be like."""

    format: FormatName = "onnx"
    size: Size | None = None  # (H, W) of all images; none: any
    pixels: PixelKind = "uint8"
    outputs: tuple[OutputName, ...] = ("labels",)

    def check(self) -> None:
        """Raises InputError when something is not allowed."""
        for name, value, allowed in (
            ("format", self.format, tuple(FORMATS)),
            ("pixels", self.pixels, get_args(PixelKind)),
            *(("outputs", output, get_args(OutputName)) for output in self.outputs),
        ):
            require(value in allowed, f"{name}: {value!r}; allowed: {', '.join(allowed)}")
        require(
            0 < len(self.outputs) == len(set(self.outputs)),
            f"outputs: {self.outputs}; allowed: one or more of {', '.join(OUTPUTS)}, each once",
        )
        if self.size is not None:
            require_size("size", self.size)


def format_of(output: Path) -> FormatName:
    """The format that a file's suffix stands for; InputError when it stands for none."""
    names = {made.suffix: name for name, made in FORMATS.items()}
    require(output.suffix in names, f"{output}: give a name that ends in {' or '.join(names)}")
    return names[output.suffix]


def export_network(
    opened: OpenedNetwork, output: Path, *, snapshot: Path, options: ExportOptions
) -> Exported:
    """Writes the network of the file `snapshot`, opened on the CPU, as `output`.

    Raises InputError, and leaves no file, when the network has no such program, a package is
    missing, or what was written does not compute what the network does.
    """
    options.check()
    chosen = FORMATS[options.format]
    chosen.require_packages()
    require(not output.exists(), f"{output} exists already: give another name")
    require(output.parent.is_dir(), f"{output.parent} is not a folder: create it first")
    network = PortableNetwork(
        opened.segmenter,
        fused=opened.config.heads == "fused",
        pixels=options.pixels,
        outputs=(*(name for name in options.outputs if name != "logits"), "logits"),
    )
    program = Program.of(network, opened.snapshot.model.title, options.size)
    facts = _facts(opened, snapshot, chosen, program, options)
    known = references(network, sizes=program.shown_sizes, batch=program.batch or 2)
    try:
        with warnings.catch_warnings(action="ignore"):  # the exporters comment on themselves
            made = chosen.made(program.trace, network.outputs)
            checks = _compared(known, made.run, output, chosen)
            with replacing(output) as file:
                made.write(file, options.outputs, facts | _stored(opened))
                file.flush()
                read = chosen.read(Path(file.name), options.outputs)
                _compared(known, read, output, chosen, checks)
    except InputError:
        raise
    except Exception as error:  # whatever another program stumbles over
        raise InputError(
            f"{output} is not written: {chosen.title} of {program.title} fails "
            f"({reason(error)}); {_OTHERWISE[options.format]}"
        ) from error
    said = {f"check, {check.images}": str(check) for check in checks}
    facts |= {"checked with": chosen.runner} | said | {"bytes": output.stat().st_size}
    return Exported(output, facts, tuple(checks))


_OTHERWISE: dict[FormatName, str] = {
    # DINOv2 and networks with an inner scale compute positions or sizes from the image's size.
    "onnx": "networks that depend on an image's size need a fixed one: --size WIDTHxHEIGHT; or try "
    "--format torch, or other versions of onnxscript and onnx",
    "torch": "networks that depend on an image's size need a fixed one: --size WIDTHxHEIGHT; or "
    "try --format onnx",
}


def _compared(
    references: Sequence[Reference],
    run: Runner,
    output: Path,
    chosen: Format,
    earlier: Sequence[Check] | None = None,
) -> list[Check]:
    """A check for each of the references; InputError when one fails. `earlier`: those of the same
    program with logits."""
    checks = []
    for number, reference in enumerate(references):
        known = 0.0 if earlier is None else earlier[number].difference
        check = reference.check(run(reference.pixels), difference=known)
        require(
            check.agrees,
            f"{output} is not written: run by {chosen.runner}, it does not compute what the "
            f"network does ({check.images}: {check}); {_OTHERWISE[chosen.name]}",
        )
        checks.append(check)
    return checks


def _facts(
    opened: OpenedNetwork,
    snapshot: Path,
    chosen: Format,
    program: Program,
    options: ExportOptions,
) -> dict[str, object]:
    """What is printed of a file, and stored in it."""
    space = opened.snapshot.label_space
    facts: dict[str, object] = {
        "format": chosen.title,
        "input": f"images {INPUTS[options.pixels]}; {program.sizes}",
        "outputs": "; ".join(f"{name} {OUTPUTS[name]}" for name in options.outputs),
        "label_space": f"{space.name} with {space.num_classes} classes",
        "classes": ", ".join(f"{number} {name}" for number, name in enumerate(space.classes)),
        "network": program.title,
    } | opened.facts
    if snapshot.exists():  # not only on the hub
        facts["snapshot"] = identity(snapshot)
    plain = input_line(Protocol(heads=opened.config.heads))
    if (scored := input_line(opened.config)) != plain:
        facts["not in the file"] = f"how its protocol shows images to the network: {scored}"
    return facts | {"written by": f"uda {__version__}, torch {torch.__version__}"}


def _stored(opened: OpenedNetwork) -> dict[str, object]:
    """What a program reads of the classes: their names and the colors of pictures, RGB."""
    space = opened.snapshot.label_space
    return {"classes": list(space.classes), "palette": [list(color) for color in space.palette]}
