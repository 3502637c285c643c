"""Unsupervised domain adaptation for semantic segmentation, in plain PyTorch."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uda.models.segmenter import Segmenter

__version__ = "0.1.0"


def load(path: str | PathLike[str], *, partial: str | Sequence[str] = ()) -> "Segmenter":
    """The network in a snapshot of ours or in a file of a project in uda/checkpoints/formats.py, in
    evaluation mode on the CPU.

    Raises InputError when the file is missing, damaged, of no known format, or lacks a tensor whose
    name does not begin as one of `partial`; those that may be missing are drawn at random, the same
    in every call.
    """
    from uda.checkpoints.snapshots import (
        load as load_snapshot,  # here, so that a part of uda loads by itself
    )

    names = [partial] if isinstance(partial, str) else partial
    return load_snapshot(Path(path), partial=names).build()
