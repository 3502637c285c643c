"""What `torture.py` interrupts: every command that writes a folder, on a few toy images."""

import os
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch

from torture_runs import SIZE, run, train_shrunk
from trials import write_random_pseudo_labels
from uda.commands import adapt, label, predict, train_translation, translate
from uda.data.registry import list_dataset
from uda.data.toy_city.city import write_toy_city
from uda.labels.spaces import CITYSCAPES
from uda.utilities.distributed import process_group

Task = Callable[[Path, Path], object]  # from the folder with the data, into an output folder
_TRAINED = "trained"  # a finished run
_PHOTOGRAPHS = "photographs"


def prepare(folder: Path, *, trained: bool) -> None:
    """Writes the toy city, pseudo-labels and, if it shall be `trained`, a run into `folder`."""
    write_toy_city(
        folder / "city", source_images=6, target_images=10, validation_images=3, size=SIZE
    )
    target = list_dataset(folder / "city", "cityscapes", "train", labeled=False)
    write_random_pseudo_labels(folder / "pseudo_labels", target, CITYSCAPES)
    if trained:
        run(partial(train_shrunk, "ClassMix", folder, folder / _TRAINED), folder / _TRAINED)
        (folder / _PHOTOGRAPHS).mkdir()
        for sample in target:
            shutil.copy(sample.image, folder / _PHOTOGRAPHS)


def _network(folder: Path) -> list[str]:
    (newest,) = (folder / _TRAINED).glob("*_12.pth")
    return ["--restore-from", str(newest), "--device", "cpu", "--workers", "0"]


def _label(folder: Path, output: Path) -> None:
    label.main([*_network(folder), "--threshold", "0.2", "--output", str(output)])


def _predict(folder: Path, output: Path) -> None:
    images = str(folder / _PHOTOGRAPHS)
    predict.main([*_network(folder), "--images", images, "--output", str(output)])


def _adapt(folder: Path, output: Path) -> None:
    adapt.main(
        [*_network(folder), "--images", str(folder / _PHOTOGRAPHS), "--output", str(output),
         "--method", "batch-norm", "self-training", "--steps", "4", "--even-if-worse"]
    )  # fmt: skip


def _translate(folder: Path, output: Path) -> None:
    translate.main(
        ["--method", "color", "--target", "cityscapes", "--dataset", "gta5", "--data-root",
         str(folder / "city"), "--output", str(output), "--workers", "0", "--device", "cpu"]
    )  # fmt: skip


def _train_translation(folder: Path, output: Path) -> None:
    resume = any(output.glob("*.pth"))
    (output.parent / "snapshots").mkdir(exist_ok=True)
    link = output.parent / "snapshots" / output.name
    if not link.is_symlink():
        link.symlink_to(output)
    output.mkdir(exist_ok=True)
    os.chdir(output.parent)
    settings = (
        f"data.root={folder / 'city'}", "data.crop=32,64", "data.source.size=64,128",
        "data.target.size=64,128", "data.workers=0", "generator.blocks=1",
        "train.precision=float32", "train.steps=6", "train.log_every=1", "train.picture_every=2",
        "train.snapshot_every=2", "train.resume_every=2",
    )  # fmt: skip
    train_translation.main(
        ["--preset", "toy_cut", "--run", output.name, "--device", "cpu",
         *(word for setting in settings for word in ("--set", setting)),
         *(["--resume"] if resume else [])]
    )  # fmt: skip


def train_rank(rank: int, port: int, folder: Path, output: Path) -> None:
    """One of two processes of a run."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    with process_group(torch.device("cpu")):
        train_shrunk("ClassMix", folder, output)


TASKS: Mapping[str, Task] = {
    "train": partial(train_shrunk, "ClassMix"),
    "label": _label,
    "predict": _predict,
    "adapt": _adapt,
    "translate": _translate,
    "train-translation": _train_translation,
}
