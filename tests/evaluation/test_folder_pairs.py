"""Files of predictions and of labels that belong together."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from factories import CITYSCAPES_STEMS, SIZE, write_png
from label_folders import STEM, random_ids, write_labels, write_predictions
from uda.data.prediction_folder import Pair, check_files, pair_files
from uda.utilities.errors import InputError


@pytest.mark.parametrize(
    "suffix",
    [
        ".png", "_leftImg8bit.png", "_pseudo_trainIds.png", "_gtFine_labelIds.png",
        "_leftImg8bit_gray.png", "-pred.png",
    ],
)  # fmt: skip
def test_predictions_are_found_by_the_beginning_of_their_names(tmp_path: Path, suffix: str) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, random_ids(0, 19))
    labels = write_labels(tmp_path, ids)
    folder = write_predictions(tmp_path, ids, suffix)
    city = folder / "aachen" / "deeper"
    city.mkdir(parents=True)
    moved = folder / f"{STEM}{suffix}"
    moved.rename(city / moved.name)
    write_png(folder / f"{STEM}_leftImg8bit_color.png", np.zeros((*SIZE, 3), np.uint8))
    (folder / "readme.txt").write_text("no picture")
    pairs, strays = pair_files(folder, labels)
    assert [pair.stem for pair in pairs] == sorted(CITYSCAPES_STEMS)
    assert pairs[0] == Pair(
        STEM, city / moved.name, labels / "aachen" / f"{STEM}_gtFine_labelIds.png"
    )
    assert strays == []


def test_folders_may_be_links(tmp_path: Path) -> None:
    labels = write_labels(tmp_path / "elsewhere", {STEM: random_ids(0, 19)})
    found = write_predictions(tmp_path / "elsewhere", {STEM: random_ids(0, 19)})
    for name, folder in (("predictions", found), ("labels", labels)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "aachen").symlink_to(folder)
    assert len(pair_files(tmp_path / "predictions", tmp_path / "labels")[0]) == 1


def test_predictions_without_labels_are_left_over(tmp_path: Path) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, random_ids(0, 19))
    labels = write_labels(tmp_path, {STEM: ids[STEM]})
    folder = write_predictions(tmp_path, ids | {"legend": random_ids(0, 19)}, ".png")
    pairs, strays = pair_files(folder, labels)
    assert [pair.stem for pair in pairs] == [STEM]
    assert [path.stem for path in strays] == sorted([*CITYSCAPES_STEMS[1:], "legend"])


def test_pairs_that_cannot_be(tmp_path: Path) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, random_ids(0, 19))
    labels, folder = write_labels(tmp_path, ids), write_predictions(tmp_path, ids)

    def complaint() -> str:
        with pytest.raises(InputError) as caught:
            pair_files(folder, labels)
        return str(caught.value)

    again = write_png(folder / "more" / f"{STEM}_gtFine_labelIds.png", random_ids(0, 19))
    assert f"{again} are of one image, and 0 more images have several files" in complaint()
    again.unlink()
    for stem in CITYSCAPES_STEMS[:3]:
        (folder / f"{stem}_leftImg8bit.png").unlink()
    message = complaint()
    assert message.startswith(f"{labels / 'aachen' / STEM}_gtFine_labelIds.png has no prediction")
    assert "nor have 2 more of 4 label files" in message
    assert message.endswith(f"expected {STEM}*.png below {folder}")
    write_png(labels / "street_gtFine_labelIds.png", random_ids(0, 19))
    assert "street_gtFine_labelIds.png: a name of Cityscapes begins with" in complaint()


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    labels = write_labels(tmp_path, {STEM: random_ids(0, 19)})
    with pytest.raises(InputError, match=r"nowhere cannot be listed .*: give a folder that exists"):
        pair_files(tmp_path / "nowhere", labels)
    with pytest.raises(InputError, match=r"file cannot be listed"):
        pair_files(labels, tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no \*_gtFine_labelIds.png below .*empty"):
        pair_files(labels, tmp_path / "empty")


def test_files_of_another_kind_or_size(tmp_path: Path) -> None:
    ids = dict.fromkeys(CITYSCAPES_STEMS, random_ids(0, 19))
    labels, folder = write_labels(tmp_path, ids), write_predictions(tmp_path, ids)
    pairs, _ = pair_files(folder, labels)
    check_files(pairs)
    path = pairs[1].prediction

    def complaint() -> str:
        with pytest.raises(InputError) as caught:
            check_files(pairs)
        assert str(path) in str(caught.value)
        return str(caught.value)

    write_png(path, np.zeros((*SIZE, 3), np.uint8))
    assert "PNG RGB has no ids; allowed: 8-bit gray or palette PNG (so it is with 0 " in complaint()
    Image.fromarray(np.zeros(SIZE, np.uint16)).save(path)
    assert re.search(r"PNG I(;16)? has no ids", complaint())  # its name depends on Pillow
    Image.fromarray(random_ids(0, 19)).save(path, format="JPEG")
    assert "JPEG L has no ids" in complaint()
    path.write_bytes(b"no picture")
    assert "cannot be decoded" in complaint()
    for pair in pairs[1:]:
        write_png(pair.prediction, random_ids(0, 19, (4, 8)))
    message = complaint()
    assert "is 8x4, its labels are 16x8: resize the network's output" in message
    assert message.endswith("(so it is with 2 more of 4 files)")
