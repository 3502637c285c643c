"""Write a snapshot from a file of another project, also one that torch refuses to open:

%(prog)s GTA2Cityscapes_multi.pth adaptsegnet.pth

A file that holds more than tensors and plain values, such as numbers of numpy or a class's options,
could run code when loaded. Here its tensors are read without running any; the rest is skipped.
An OUT that ends in .safetensors is a file of safetensors, for one network and its facts.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from uda.commands import choices
from uda.commands.endings import print_facts
from uda.commands.options import add_foreign_options, foreign_options, new_parser
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import require

if TYPE_CHECKING:
    from uda.checkpoints.foreign import ForeignOptions


def parse_arguments(arguments: Sequence[str] | None, prog: str | None = None) -> argparse.Namespace:
    parser = new_parser(__doc__, prog=prog)
    add = parser.add_argument
    add("source", metavar="IN", type=Path, help="file of ours or of another project")
    add("output", metavar="OUT", type=Path, help="new file, a snapshot for --restore-from")
    add_foreign_options(parser)
    alone = "write only the tensors, of any network: for discriminators and initial weights"
    which = "the network for a file of safetensors (default: student)"
    add("--weights", choices=("student", "teacher"), help=which)
    add("--tensors", action="store_true", help=alone)
    options = parser.parse_args(arguments)
    given = foreign_options(options).given
    if options.tensors and given:
        parser.error(f"{', '.join(given)} is for networks: omit it with --tensors")
    if options.weights and (options.tensors or options.output.suffix != choices.SAFETENSORS):
        parser.error("--weights is for a network as OUT.safetensors: other files hold all: omit it")
    return options


def convert_tensors(source: Path, output: Path) -> dict[str, object]:
    """Writes the tensors of the state dict in `source`; says what there was."""
    from torch import Tensor

    from uda.checkpoints.recovery import recover_tensors
    from uda.checkpoints.snapshots import save
    from uda.utilities.safetensors_files import SUFFIX, write_safetensors
    from uda.utilities.weight_files import listed, unwrapped

    content, dropped = recover_tensors(source)
    entries = unwrapped(content, prefixes=())
    tensors = {name: value for name, value in entries.items() if isinstance(value, Tensor)}
    require(bool(tensors), f"{source} has no state dict: there is no tensor to write")
    if output.suffix == SUFFIX:
        with replacing(output) as file:
            write_safetensors(file, tensors)
    else:
        save(tensors, output)
    facts: dict[str, object] = {"tensors": len(tensors)}
    return facts | ({"dropped": listed(dropped)} if dropped else {})


def convert_network(
    source: Path, output: Path, foreign: "ForeignOptions", weights: Literal["student", "teacher"]
) -> dict[str, object]:
    """Writes a snapshot of the network in `source`, or of its `weights` alone as a file of
    safetensors; says what there was."""
    from uda.checkpoints.snapshots import load, save, snapshot_values
    from uda.utilities.safetensors_files import SUFFIX, write_safetensors

    snapshot = load(source, foreign=foreign, recover=True)
    snapshot.build(weights)  # refuses what would be refused when the snapshot is used
    facts: dict[str, object] = {"network": snapshot.preset}
    if output.suffix == SUFFIX:
        state = snapshot.student if weights == "student" else snapshot.teacher
        assert state is not None, "it was built"
        with replacing(output) as file:
            write_safetensors(file, state, snapshot_values(snapshot) | {"weights": weights})
        facts["weights"] = weights
    else:
        save(snapshot_values(snapshot), output)
    return facts | snapshot.report | {"supervision": snapshot.supervision}


def main(arguments: Sequence[str] | None = None, *, prog: str | None = None) -> None:
    options = parse_arguments(arguments, prog)
    source, output = options.source, options.output
    require(not output.exists(), f"{output} exists already: give another name for OUT")
    require(
        output.parent.is_dir(), f"{output.parent} is not a folder: create it, or give another OUT"
    )
    if options.tensors:
        facts = convert_tensors(source, output)
    else:
        facts = convert_network(
            source, output, foreign_options(options), options.weights or "student"
        )
    print_facts({"written": output, **facts})
