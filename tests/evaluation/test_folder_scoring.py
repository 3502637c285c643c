"""Folders of label maps: values of predictions, and what is counted."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from factories import CITYSCAPES_STEMS, Bytes, write_png
from label_folders import (
    NO_CLASS,
    STEM,
    random_ids,
    raw_folders,
    scored,
    write_labels,
    write_predictions,
)
from uda.data.prediction_folder import Ids, pair_files, read_prediction
from uda.evaluation.boundaries import BoundaryMatrix
from uda.evaluation.folder_scoring import sets_of_maps
from uda.evaluation.measures import Measured
from uda.evaluation.metrics import ConfusionMatrix, scores
from uda.evaluation.reports import boundary_fact
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.utilities.errors import InputError


def test_values_of_predictions(tmp_path: Path) -> None:
    train = write_png(tmp_path / "train.png", np.array([[0, 18, 255, 7]], np.uint8))
    found, largest = read_prediction(train, ids="train", space=CITYSCAPES)
    assert (found.tolist(), largest) == ([[0, 18, NO_CLASS, 7]], 255)
    raw = write_png(tmp_path / "raw.png", np.array([[7, 33, 0, 9, 34, 16]], np.uint8))
    found, largest = read_prediction(raw, ids="raw", space=CITYSCAPES)
    assert (found.tolist(), largest) == ([[0, 18, *[NO_CLASS] * 4]], 34)


def test_palette_files_hold_indices(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 18, 255]], np.uint8))
    image.putpalette([value % 256 for value in range(7, 7 + 3 * 256)])
    image.save(tmp_path / "palette.png")
    found, _ = read_prediction(tmp_path / "palette.png", ids="train", space=CITYSCAPES)
    assert found.tolist() == [[0, 18, NO_CLASS]]


@pytest.mark.parametrize(
    ("ids", "values", "message"),
    [
        ("train", [0, 26], "value 26 is not a train id; allowed: 0..18, 255 for no class; these "
         "are raw ids: give --ids raw"),
        ("train", [0, 19, 255], "value 19 is not a train id; allowed: 0..18, 255 for no class; "),
        ("train", [0, 77, 78], "value 77 is not a train id"),
        ("raw", [0, 255], "value 255 is not a raw id of cityscapes19; allowed: 0..34; these are "
         "train ids: give --ids train"),
        ("raw", [33, 255], "value 255 is not a raw id of cityscapes19; allowed: 0..34; write the"),
        ("raw", [35], "value 35 is not a raw id"),
    ],
)  # fmt: skip
def test_values_that_are_no_ids(tmp_path: Path, ids: Ids, values: list[int], message: str) -> None:
    path = write_png(tmp_path / "ids.png", np.array([values], np.uint8))
    with pytest.raises(InputError) as caught:
        read_prediction(path, ids=ids, space=CITYSCAPES)
    assert str(caught.value).startswith(f"{path}: {message}")


def test_what_may_be_train_ids_is_scored_with_a_warning(tmp_path: Path) -> None:
    """One by one they are raw ids, as of images without sky and cars."""
    stems = CITYSCAPES_STEMS[:2]
    large, small = ({stem: random_ids(i, n) for i, stem in enumerate(stems)} for n in (34, 19))
    labels, few_labels = write_labels(tmp_path, large), write_labels(tmp_path / "few", small)
    found, few = write_predictions(tmp_path, large), write_predictions(tmp_path / "few", small)
    assert "warning" not in scored(found, labels, ids="raw").facts
    assert "warning" not in scored(few, labels, ids="train").facts
    message = "no value of the {} is above 18: if these are train ids"
    assert warning(scored(few, labels, ids="raw")).startswith(message.format("predictions"))
    assert warning(scored(few, few_labels, ids="train")).startswith(message.format("labels"))
    both = warning(scored(few, few_labels, ids="raw"))
    assert both.startswith(message.format("labels and predictions"))


def warning(measured: Measured) -> str:
    return str(measured.facts["warning"])


def test_label_files_with_a_train_id_of_255_are_refused(tmp_path: Path) -> None:
    labels = write_labels(tmp_path, {STEM: random_ids(0, [0, 3, IGNORE_INDEX])})
    found = write_predictions(tmp_path, {STEM: random_ids(0, 19)})
    with pytest.raises(InputError, match="255 means the file has train ids already"):
        scored(found, labels, ids="train")


def test_no_class_is_a_miss_and_no_false_positive(tmp_path: Path) -> None:
    """Labels: 4 road, 2 sky, 2 ignored; of the road one is no class and one sky, of the sky one is
    no class; what is predicted where labels are ignored does not matter."""
    labels = write_labels(tmp_path, {STEM: np.array([[7, 7, 7, 7, 23, 23, 0, 3]], np.uint8)})
    train = write_predictions(
        tmp_path, {STEM: np.array([[0, 0, 255, 10, 10, 255, 255, 10]], np.uint8)}
    )
    raw = write_predictions(
        tmp_path / "raw", {STEM: np.array([[7, 7, 0, 23, 23, 34, 9, 23]], np.uint8)}
    )
    for found in (scored(train, labels, ids="train"), scored(raw, labels, ids="raw")):
        assert found.scores.iou[0] == pytest.approx(2 / 4)
        assert found.scores.iou[10] == pytest.approx(1 / 3)
        assert len(found.scores.absent) == 17
        assert found.scores.miou == pytest.approx((2 / 4 + 1 / 3) / 2)
        assert found.scores.pixel_accuracy == pytest.approx(3 / 6)
        assert list(found.facts) == ["no_class"]
        assert fact(found, "no_class")["value"] == pytest.approx(100 * 2 / 6, abs=1e-4)


def test_folders_are_scored_as_one_confusion_matrix(tmp_path: Path) -> None:
    """Raw and train ids alike, boundaries as well."""
    found, labels = raw_folders(tmp_path)
    matrix, edges = ConfusionMatrix(20), BoundaryMatrix(19, 0.1)
    train_ids = {}
    for pair in pair_files(found, labels)[0]:
        predicted, _ = read_prediction(pair.prediction, ids="raw", space=CITYSCAPES)
        train_ids[pair.stem] = np.where(predicted == NO_CLASS, 255, predicted).astype(np.uint8)
        true = CITYSCAPES.to_train_ids(np.asarray(Image.open(pair.labels)), "labels")
        for counts in (matrix, edges):
            counts.update(*(batch_of(ids) for ids in (predicted, true)))
    again = write_predictions(tmp_path / "train", train_ids)
    for result in (
        scored(found, labels, ids="raw", boundary_ratio=0.1),
        scored(again, labels, ids="train", boundary_ratio=0.1),
    ):
        assert result.scores == scores(matrix, CITYSCAPES.report_names)
        near = scores(edges, CITYSCAPES.report_names)
        assert fact(result, "boundary_iou") == boundary_fact(
            near, CITYSCAPES.report_names, ratio=0.1
        )
        assert 20 < fact(result, "no_class")["value"] < 70


def fact(measured: Measured, name: str) -> dict[str, Any]:
    found = measured.facts[name]
    assert isinstance(found, dict)
    return found


def batch_of(ids: Bytes) -> Tensor:
    return torch.from_numpy(np.array(ids))[None]


def test_means_over_sets_of_classes(tmp_path: Path) -> None:
    result = scored(*raw_folders(tmp_path), ids="raw", sets=("miou16_subset", "miou19"))
    assert list(result.facts) == ["no_class", "sets"]
    sets = fact(result, "sets")
    assert sets["miou19"]["value"] == round(100 * result.scores.miou, 4)
    sixteen = [iou for i, iou in enumerate(result.scores.iou) if i not in (9, 14, 16)]
    expected = pytest.approx(100 * np.nanmean(sixteen), abs=1e-4)
    assert sets["miou16_subset"]["value"] == expected


def test_a_restricted_set_needs_the_network() -> None:
    with pytest.raises(InputError, match=r"miou16_restricted is computed from a netw"):
        sets_of_maps(["miou19", "miou16_restricted"], space=CITYSCAPES)
