"""Clothing Co-Parsing, real photographs of people: the data of documents 000 and 001.

The folder is UDA_CCP, or shared/data/ccp beside the repository; without it these tests are skipped.
"""

import json
import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from shells import Shell
from uda.commands.data import check
from uda.data.datasets.clothes import CLOTHES59_CLASSES
from uda.data.files import read_image
from uda.data.label_files import read_train_ids
from uda.data.registry import list_dataset
from uda.data.samples import evenly_spaced

REPOSITORY = Path(__file__).resolve().parents[2]
CCP = Path(os.environ.get("UDA_CCP", REPOSITORY.parent / "shared/data/ccp"))

pytestmark = [
    pytest.mark.skipif(
        not (CCP / "photos").is_dir(),
        reason=f"Clothing Co-Parsing is not in {CCP}: set UDA_CCP to its folder",
    ),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "PeopleClothing").symlink_to(CCP)
    return root


def test_every_file_is_listed_once(root: Path) -> None:
    train, val = (list_dataset(root, "clothes59", part, labeled=True) for part in ("train", "val"))
    stems = [sample.stem for sample in (*train, *val)]
    assert (len(train), len(val)) == (803, 201)
    assert sorted(stems) == [f"{number:04d}" for number in range(1, 1005)]


def test_the_doctor_finds_nothing_wrong(root: Path, tmp_path: Path) -> None:
    arguments = ["--data-root", str(root), "--dataset", "clothes59", "--fast"]
    assert check.main([*arguments, "--cache", str(tmp_path / "cache.json")]) == 0


def test_the_classes_lie_where_people_have_them(root: Path) -> None:
    """Names and ids fit: from hair down to shoes, with background in the corners; and skin has
    the color of skin."""
    place = {name: index for index, name in enumerate(CLOTHES59_CLASSES.classes)}
    heights: dict[str, list[float]] = {name: [] for name in place}
    corners, colors = list[float](), list[npt.NDArray[np.float64]]()
    samples = list_dataset(root, "clothes59", "train", labeled=True)
    for sample in evenly_spaced(samples, 120):
        image = np.asarray(read_image(sample.image))
        assert sample.labels is not None
        labels = read_train_ids(sample.labels, image.shape[:2], CLOTHES59_CLASSES)
        height, width = labels.shape
        corner = labels[: height // 10, : width // 10]
        corners.append(float((corner == place["background"]).mean()))
        for name, train_id in place.items():
            rows = np.flatnonzero((labels == train_id).any(axis=1))
            if len(rows):
                heights[name].append(float(rows.mean()) / height)
        colors.append(image[labels == place["skin"]].mean(axis=0))
    mean = {name: float(np.mean(found)) for name, found in heights.items() if len(found) > 10}
    assert np.mean(corners) > 0.99
    order = ("hair", "blouse", "dress", "pants", "shoes")
    assert [mean[name] for name in order] == sorted(mean[name] for name in order)
    assert mean["hair"] < 0.2 < mean["skin"] < 0.5 < mean["pants"] < 0.8 < mean["shoes"]
    assert abs(mean["sunglasses"] - mean["hair"]) < 0.05
    red, green, blue = np.mean(colors, axis=0)
    assert red > green + 20 > blue + 20


# The preset shortened to two minutes of one core: a small network, small images, no distortion.
STEPS = 200
SHORT = {
    "data.crop": "96,96", "data.source.size": "96,384", "data.source.policy": "none",
    "data.workers": 0,
    "model.backbone": "resnet18", "model.backbone_weights": "none", "model.output_stride": 16,
    "model.aspp_channels": 128, "model.decoder_channels": 128,
    "train.steps": STEPS, "train.batch_size": 8, "train.snapshot_every": STEPS,
    "train.precision": "bfloat16", "train.optimizer": "adamw", "train.optimizer.lr": 0.002,
    "evaluation.every": 0, "evaluation.input_size": "96,384",
}  # fmt: skip
HELD_OUT = 40  # photographs


def test_the_preset_learns_each_class_under_its_own_name(root: Path, shell: Shell) -> None:
    """Predictions of photographs that were held out, by the names that they are written with,
    against the stored values of the label files, by the lines of the data set's own list: nothing
    of the library is between the two."""
    preset = "clothes59_deeplabv3plus_r50"
    sets = [part for name, value in SHORT.items() for part in ("--set", f"{name}={value}")]
    shell.run(
        "train_uda.py", "--preset", preset, "--device", "cpu", "--data-root", str(root), *sets
    )
    held_out = evenly_spaced(list_dataset(root, "clothes59", "val", labeled=False), HELD_OUT)
    (shell.cwd / "held_out.txt").write_text("".join(f"{sample.image}\n" for sample in held_out))
    shell.run(
        "predict.py", "--restore-from", f"snapshots/{preset}/CLOTHES59_{STEPS}.pth",
        "--images", "held_out.txt", "--kinds", "ids", "--output", "predictions",
        "--device", "cpu", "--workers", "0",
    )  # fmt: skip
    found = Found(shell.cwd / "predictions")
    assert found.maps == HELD_OUT
    assert found.miou > 1.4 * found.background_alone
    assert found.iou["background"] > 0.85
    assert found.corners > 0.95
    assert found.iou["skin"] > 0.1
    assert found.iou["pants"] > 0.05
    assert found.height["skin"] < 0.45 < 0.55 < found.height["pants"]
    assert found.height["dress"] < found.height["pants"]


class Found:
    """How predicted label maps and the stored ones compare, by the names of both."""

    def __init__(self, folder: Path) -> None:
        written = json.loads((folder / "predictions.json").read_text())["classes"]
        lines = ["background", *(CCP / "classes.txt").read_text().split()[1:]]
        values = np.array([lines.index(entry["name"]) for entry in written])
        count = len(lines)
        pixels = np.zeros((count, count), np.int64)  # by stored and predicted value
        rows, corners = np.zeros(count), list[float]()
        for path in folder.glob("ids/**/*.png"):
            predicted = values[np.asarray(Image.open(path))]
            stored = np.asarray(Image.open(CCP / "labels" / path.name)).astype(np.int64)
            assert predicted.shape == stored.shape
            both = np.bincount((count * stored + predicted).ravel(), minlength=count**2)
            pixels += both.reshape(count, count)
            height, width = stored.shape
            for row, place in zip(predicted, np.linspace(0, 1, height), strict=True):
                rows += place * np.bincount(row, minlength=count)
            corners.append(float((predicted[: height // 10, : width // 10] == 0).mean()))
        union = pixels.sum(axis=0) + pixels.sum(axis=1) - pixels.diagonal()
        shown = np.flatnonzero(pixels.sum(axis=1)).tolist()
        self.maps = len(corners)
        self.iou = {lines[value]: pixels[value, value] / union[value] for value in shown}
        self.miou = float(np.mean(list(self.iou.values())))
        self.background_alone = pixels[0].sum() / pixels.sum() / len(shown)  # its mIoU
        # Mean row of the pixels that are predicted as a class: 0 at the top, 1 at the bottom.
        totals = pixels.sum(axis=0)
        self.height = {n: r / t for n, r, t in zip(lines, rows, totals, strict=True) if t}
        self.corners = float(np.mean(corners))  # share of background in the upper left ones
