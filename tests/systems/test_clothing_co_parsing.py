"""Clothing Co-Parsing, real photographs of people: the data of documents 000 and 001.

The folder is UDA_CCP, or shared/data/ccp beside the repository; without it these tests are skipped.
"""

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

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
