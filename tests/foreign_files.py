"""Files of other projects, and what is read in them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from factories import file_of
from uda.checkpoints.foreign import ForeignCheckpoint, ForeignOptions, read_foreign
from uda.checkpoints.formats.segmentron import SEGMENTRON

State = dict[str, Tensor]


def segmentron_file() -> State:
    """A file in SegmenTron's layout, as it was published: with ImageNet's classifier."""
    classifier = {
        "encoder.fc.weight": torch.zeros(()).expand(1000, 2048),
        "encoder.fc.bias": torch.zeros(()).expand(1000),
    }
    return file_of(SEGMENTRON) | classifier


def prefixed(state: State, prefix: str = "module.") -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def without(state: State, *beginnings: str) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith(beginnings)}


def opened(
    content: object, *partial: str, ignore: Sequence[str] = (), project: str | None = None
) -> ForeignCheckpoint:
    options = ForeignOptions(partial=partial, ignore=ignore, project=project)
    found = read_foreign(content, origin="part.pth", options=options)
    assert found is not None
    return found
