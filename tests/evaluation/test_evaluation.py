"""Scores against brute force, averages by hand, and batch norm left alone or re-estimated."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from factories import Bytes, ColorSegmenter, colors_of, noise, write_png, written_sample
from tiny_runs import tiny_model
from uda.data.registry import list_dataset
from uda.data.samples import Sample
from uda.evaluation.evaluate import (
    EvaluationConfig,
    evaluate,
    predictions,
)
from uda.evaluation.metrics import Scores
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.models.segmenter import Segmenter
from uda.utilities.errors import InputError

AS_STORED = EvaluationConfig(dataset="cityscapes", input_size=None)


def random_ids(seed: int, size: tuple[int, int], highest: int = 18) -> Bytes:
    return np.random.default_rng(seed).integers(0, highest + 1, size, dtype=np.uint8)


def score(samples: list[Sample], config: EvaluationConfig = AS_STORED) -> Scores:
    return evaluate(ColorSegmenter(), samples, config=config, label_space=CITYSCAPES).scores


def brute_force(pairs: list[tuple[Bytes, Bytes]]) -> tuple[list[float], float]:
    """IoU of each class from sets of pixels, and the share of right ones; pairs of predictions and
    labels."""
    pixels = {
        (image, y, x): (int(predicted[y, x]), int(labels[y, x]))
        for image, (predicted, labels) in enumerate(pairs)
        for y in range(labels.shape[0])
        for x in range(labels.shape[1])
        if labels[y, x] != IGNORE_INDEX
    }
    ious = []
    for class_ in range(19):
        found = {where for where, (predicted, _) in pixels.items() if predicted == class_}
        there = {where for where, (_, label) in pixels.items() if label == class_}
        union = found | there
        ious.append(len(found & there) / len(union) if union else math.nan)
    right = sum(predicted == label for predicted, label in pixels.values())
    return ious, right / len(pixels)


def test_scores_equal_brute_force_over_images_of_several_sizes(tmp_path: Path) -> None:
    samples, pairs = [], []
    for index, size in enumerate([(12, 20), (9, 31), (12, 20)]):
        predicted = random_ids(index, size, 16)
        labels = predicted.copy()
        wrong = np.random.default_rng(index).random(size) < 0.5
        labels[wrong] = random_ids(index + 10, size, 15)[wrong]
        labels[:2] = IGNORE_INDEX
        samples.append(written_sample(tmp_path, f"{index}", colors_of(predicted), labels))
        pairs.append((predicted, labels))
    found = score(samples)
    ious, accuracy = brute_force(pairs)
    assert found.iou == pytest.approx(ious, nan_ok=True)
    assert found.miou == pytest.approx(float(np.nanmean(ious)))
    assert found.pixel_accuracy == pytest.approx(accuracy)
    assert found.absent == ("motocycle", "bicycle")
    assert math.isnan(found.iou[17])
    assert sum(map(sum, found.confusion)) == 2 * 10 * 20 + 7 * 31


def test_a_class_only_predicted_scores_zero_and_pulls_the_mean_down(tmp_path: Path) -> None:
    predicted, labels = np.array([[3, 3, 5, 5]], np.uint8), np.array([[3, 3, 3, 255]], np.uint8)
    found = score([written_sample(tmp_path, "a", colors_of(predicted), labels)])
    assert found.iou[3] == pytest.approx(2 / 3)
    assert found.iou[5] == 0
    assert found.miou == pytest.approx(1 / 3)
    assert len(found.absent) == 17


def test_predictions_are_scored_at_the_resolution_of_the_labels(tmp_path: Path) -> None:
    """Every other column of the labels is road: at half the resolution they merge."""
    labels = np.full((16, 32), 4, np.uint8)
    labels[:, ::2] = 0
    sample = written_sample(tmp_path, "a", colors_of(np.full((16, 32), 4, np.uint8)), labels)
    found = score([sample], EvaluationConfig(dataset="cityscapes", input_size=(4, 8)))
    assert found.confusion[0][4] == found.confusion[4][4] == 16 * 16
    assert sum(map(sum, found.confusion)) == 16 * 32


def test_a_scale_that_leaves_no_pixel_is_refused(tmp_path: Path) -> None:
    sample = written_sample(tmp_path, "a", noise(0), random_ids(0, (8, 16)))
    with pytest.raises(InputError, match=r"evaluation\.scales \(1\.0, 0\.01\): 16x8 times"):
        score([sample], EvaluationConfig(dataset="cityscapes", input_size=None, scales=(1.0, 0.01)))


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_files_surface_as_one_line(tmp_path: Path, workers: int) -> None:
    good = written_sample(tmp_path, "a", noise(0), random_ids(0, (8, 16)))
    corrupt = written_sample(tmp_path, "b", noise(1), random_ids(1, (8, 16)))
    corrupt.image.write_bytes(corrupt.image.read_bytes()[:70])
    outside = written_sample(tmp_path, "c", noise(2), random_ids(2, (8, 16)))
    assert outside.labels is not None
    write_png(outside.labels, np.full((8, 16), 255, np.uint8))
    for bad, message in ((corrupt, "b.png cannot be decoded"), (outside, "label values 255")):
        with pytest.raises(InputError) as refusal:
            list(
                predictions(
                    ColorSegmenter(), [good, bad], config=AS_STORED, label_space=CITYSCAPES,
                    workers=workers,
                )
            )  # fmt: skip
        assert message in str(refusal.value)
        assert "\n" not in str(refusal.value)


def tiny_segmenter(seed: int = 0) -> Segmenter:
    torch.manual_seed(seed)
    return tiny_model().build(CITYSCAPES.num_classes)


def test_loader_processes_change_no_prediction(toy_root: Path) -> None:
    samples = list_dataset(toy_root, "cityscapes", "val", labeled=True)
    segmenter = tiny_segmenter()
    config = EvaluationConfig(dataset="cityscapes", input_size=(32, 64))
    before = torch.get_rng_state()
    alone, together = (
        list(predictions(segmenter, samples, config=config, label_space=CITYSCAPES, workers=n))
        for n in (0, 2)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert [views.stem for views, _ in alone] == [sample.stem for sample in samples]
    for (ours, left), (theirs, right) in zip(alone, together, strict=True):
        assert (ours.stem, ours.size) == (theirs.stem, theirs.size)
        assert ours.labels is not None
        assert theirs.labels is not None
        assert torch.equal(ours.labels, theirs.labels)
        assert torch.equal(left.labels, right.labels)


def test_evaluation_changes_no_weight_and_no_statistic(toy_root: Path) -> None:
    samples = list_dataset(toy_root, "cityscapes", "val", labeled=True)
    segmenter = tiny_segmenter().train()
    before = {name: tensor.clone() for name, tensor in segmenter.state_dict().items()}
    evaluate(segmenter, samples, config=EvaluationConfig(dataset="cityscapes", input_size=(32, 64)),
             label_space=CITYSCAPES)  # fmt: skip
    assert not segmenter.training
    for name, tensor in segmenter.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_network_that_does_not_fit_the_data_set_or_the_protocol_is_refused(
    tmp_path: Path,
) -> None:
    """From Python nothing has checked them before."""
    labels = random_ids(0, (12, 20))
    samples = [written_sample(tmp_path, "a", colors_of(labels), labels)]
    few = tiny_model().build(13)
    with pytest.raises(InputError, match="the network has 13 classes, but the data set has 19:"):
        evaluate(few, samples, config=AS_STORED, label_space=CITYSCAPES)
    with pytest.raises(InputError, match="protocol mrnet joins two heads, but this network has"):
        score(samples, EvaluationConfig.following("mrnet", dataset="cityscapes"))
