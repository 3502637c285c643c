"""Shared by the tests of the experiment log's mistakes, tests/*/test_log_*.py.

A test is named after its mistake in the analysis of the log, C1 to C5k. Each mistake went unnoticed
for weeks and changed a number of the log. A test shows that the library does not make the mistake,
and that the check finds it when it is put in on purpose.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from factories import (
    CITYSCAPES_STEMS,
    Bytes,
    cityscapes_image,
    raw_labels,
    write_png,
)
from tiny_runs import (
    CPU,
    batch_tensors,
    tiny_preset,
    without_dropout,
)
from uda.data.batch import Batch
from uda.data.sampling import batches
from uda.data.training import open_training_data
from uda.evaluation.metrics import Scores
from uda.experiment import Experiment
from uda.training.loop import train

SIZE = (80, 160)  # pixels (height, width) of the generated pictures


def from_the_start(name: str, root: Path, *, steps: int = 3) -> Experiment:
    """The tiny preset, every objective active from the first step, in float32, without dropout."""
    experiment = without_dropout(tiny_preset(name, root, steps=steps))
    experiment.train.precision = "float32"
    for objective in experiment.objectives.values():
        objective.start_step = 0
    return experiment


def of_pictures(name: str, root: Path, *, steps: int = 3) -> Experiment:
    """The same preset on the pictures at `root`, in crops of (64, 128), without resizing."""
    experiment = from_the_start(name, root, steps=steps)
    for domain, datasets in (
        (experiment.data.source, "gta5"),
        (experiment.data.target, "cityscapes"),
    ):
        if domain is not None:
            domain.datasets, domain.size, domain.scale = (datasets,), SIZE, (1.0, 1.0)
    return experiment


def loaded(experiment: Experiment) -> Iterator[Batch]:
    """The batches of the experiment's steps, read from its files."""
    data = open_training_data(experiment.data, seed=experiment.train.seed, evaluated="cityscapes")
    return batches(
        data.dataset,
        batch_size=experiment.train.batch_size,
        first_step=0,
        steps=experiment.train.steps,
        workers=0,
    )


def quarter(batch: Batch) -> Batch:
    """The upper left quarter of every image, for speed."""
    tensors = batch_tensors(batch)
    parts: dict[str, Any] = {name: tensor[..., :32, :64] for name, tensor in tensors.items()}
    return replace(batch, **parts)


def run_to_end(experiment: Experiment, folder: Path, *, resume: bool = False) -> Scores:
    return train(experiment, folder, preset="tiny", device=CPU, resume=resume)


def write_pictures(root: Path, *, source: Sequence[Bytes], target: Sequence[Bytes]) -> Path:
    """A data root with these pictures (H, W, 3). Only the source has labels."""
    for index, picture in enumerate(source):
        write_png(root / "GTA5" / "images" / f"{index:05d}.png", picture)
        labels = raw_labels(index, (picture.shape[0], picture.shape[1]))
        write_png(root / "GTA5" / "labels" / f"{index:05d}.png", labels)
    for stem, picture in zip(CITYSCAPES_STEMS, target, strict=True):
        write_png(cityscapes_image(root, stem), picture)
    return root


def blocks(seed: int) -> Bytes:
    """A picture (H, W, 3) of 50 blocks of 16x16 pixels in 12 colors. No shift of it and no mirror
    image maps each color to one color."""
    rng = np.random.default_rng(seed)
    colors = rng.integers(0, 256, (12, 3), dtype=np.uint8)
    which = rng.integers(0, 12, (SIZE[0] // 16, SIZE[1] // 16))
    return colors[which].repeat(16, axis=0).repeat(16, axis=1)
