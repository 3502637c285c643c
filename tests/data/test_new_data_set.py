"""A data set is one file in uda/data/datasets: from there to scores nothing else is edited."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from factories import write_png
from tiny_runs import REPOSITORY

EXAMPLE = REPOSITORY / "tests/examples/loveda.py"
SIZE = (64, 96)  # pixels (height, width)
RUN = """
import json
from pathlib import Path
import torch
from tiny_runs import CPU, tiny_preset
from uda.data.doctor.plan import plan_of_root
from uda.data.registry import LAYOUTS
from uda.training.loop import train

assert LAYOUTS["loveda"].label_space.name == "loveda7"
torch.set_num_threads(1)
root = Path("data")
assert [wish.name for wish in plan_of_root(root).wishes] == [
    "loveda train_urban", "loveda val_rural"
]
experiment = tiny_preset("toy_source_only", root, steps=2)
experiment.data.source.datasets = ("loveda",)
experiment.data.source.splits = ("train_urban",)
experiment.data.source.size, experiment.data.crop = (72, 108), (64, 96)
experiment.evaluation.dataset, experiment.evaluation.split = "loveda", "val_rural"
experiment.evaluation.input_size = None
scores = train(experiment, Path("run"), preset="tiny", device=CPU)
print(json.dumps([len(scores.iou), len(scores.absent), sum(map(sum, scores.confusion))]))
"""


def write_loveda(root: Path) -> int:
    """A few noisy tiles with labels of all classes; the labeled pixels of the split to score on."""
    rng = np.random.default_rng(0)
    labeled = 0
    for folder, count in (("Train/Urban", 3), ("Val/Rural", 2)):
        for number in range(count):
            labels = np.kron(rng.integers(0, 8, (8, 12)), np.ones((8, 8), int)).astype(np.uint8)
            name = f"{len(folder)}{number}.png"
            picture = rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)
            write_png(root / folder / "images_png" / name, picture)
            write_png(root / folder / "masks_png" / name, labels)
            labeled += int((labels > 0).sum()) if folder == "Val/Rural" else 0
    return labeled


@pytest.mark.slow
def test_one_file_from_raw_files_to_scores(tmp_path: Path) -> None:
    """In a copy of the package, the example in its place."""
    shutil.copytree(
        REPOSITORY / "uda", tmp_path / "uda", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(EXAMPLE, tmp_path / "uda/data/datasets")
    labeled = write_loveda(tmp_path / "data/LoveDA")
    done = subprocess.run(
        [sys.executable, "-c", RUN], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "UDA_CACHE": str(tmp_path)},
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"[7, 0, {labeled}]"
