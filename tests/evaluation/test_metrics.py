"""The confusion matrix and its scores, by hand and against sets of pixels."""

import math

import pytest
import torch

from uda.evaluation.metrics import ConfusionMatrix, Scores, scores, set_miou
from uda.labels.class_sets import ClassSet
from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.errors import InputError

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
CLASSES = ("road", "car", "train")


def by_hand() -> ConfusionMatrix:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[[0, 0, 1, 0]]]), torch.tensor([[[0, 0, 0, 1]]]))
    matrix.update(torch.tensor([[[1, 2]]]), torch.tensor([[[1, IGNORE_INDEX]]]))
    return matrix


def test_rows_are_labels_and_columns_predictions() -> None:
    assert by_hand().counts.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]


def test_scores_by_hand() -> None:
    result = scores(by_hand(), CLASSES)
    assert result.iou[:2] == pytest.approx((2 / 4, 1 / 3))
    assert math.isnan(result.iou[2])
    assert result.miou == pytest.approx((1 / 2 + 1 / 3) / 2)
    assert result.pixel_accuracy == pytest.approx(3 / 5)
    assert result.absent == ("train",)
    assert result.confusion == ((2, 1, 0), (1, 1, 0), (0, 0, 0))


def test_accuracy_is_of_the_labeled_pixels() -> None:
    result = scores(by_hand(), CLASSES)
    assert result.accuracy[:2] == pytest.approx((2 / 3, 1 / 2))
    assert math.isnan(result.accuracy[2])
    assert result.mean_accuracy == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_only_predicted_has_no_accuracy() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(torch.tensor([[[0, 1]]]), torch.tensor([[[0, 0]]]))
    result = scores(matrix, CLASSES[:2])
    assert result.iou == pytest.approx((0.5, 0))
    assert result.accuracy[0] == pytest.approx(0.5)
    assert math.isnan(result.accuracy[1])
    assert result.mean_accuracy == pytest.approx(0.5)


def test_a_class_that_is_only_predicted_scores_zero_and_is_not_absent() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(torch.tensor([[[0, 2]]]), torch.tensor([[[0, 0]]]))
    result = scores(matrix, CLASSES)
    assert result.iou[2] == 0
    assert result.miou == pytest.approx((0.5 + 0) / 2)
    assert result.absent == ("car",)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_miou_equals_that_of_sets_of_pixels(device: str, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    predictions = torch.randint(0, 7, (3, 5, 9, 11), generator=generator)
    labels = torch.randint(0, 8, (3, 5, 9, 11), generator=generator)
    labels[labels == 7] = IGNORE_INDEX

    ious = []
    counted = {i for i, label in enumerate(labels.flatten().tolist()) if label != IGNORE_INDEX}
    for train_id in range(7):
        found = {i for i, p in enumerate(predictions.flatten().tolist()) if p == train_id} & counted
        true = {i for i, label in enumerate(labels.flatten().tolist()) if label == train_id}
        ious.append(len(found & true) / len(found | true))

    matrix = ConfusionMatrix(7)
    for pair in zip(predictions, labels, strict=True):
        matrix.update(*(tensor.to(device, dtype) for tensor in pair))
    result = scores(matrix, [str(train_id) for train_id in range(7)])
    assert matrix.counts.device.type == device
    assert matrix.counts.dtype == torch.int64
    assert result.iou == pytest.approx(ious)
    assert result.miou == pytest.approx(sum(ious) / 7)


def test_counts_beyond_single_precision_stay_exact() -> None:
    matrix = ConfusionMatrix(2)
    matrix.counts[0, 0] = 2**24
    matrix.update(torch.zeros(1, 1, 1).long(), torch.zeros(1, 1, 1).long())
    assert matrix.counts[0, 0].item() == 2**24 + 1


def test_nothing_counted_scores_nan() -> None:
    result = scores(ConfusionMatrix(3), CLASSES)
    assert math.isnan(result.miou)
    assert math.isnan(result.pixel_accuracy)
    assert math.isnan(result.mean_accuracy)
    assert result.absent == CLASSES


def with_rest() -> Scores:
    """Two classes and the rest, which is 2."""
    matrix = ConfusionMatrix(3)
    labels = torch.tensor([[[0, 0, 0, 1, 2, 2, IGNORE_INDEX]]])
    matrix.update(torch.tensor([[[0, 0, 2, 1, 1, 2, 0]]]), labels)
    return scores(matrix, CLASSES[:2])


def test_the_rest_makes_unions_larger_and_is_not_scored() -> None:
    result = with_rest()
    assert result.iou == pytest.approx((2 / 3, 1 / 2))  # one is missed, one predicted for the rest
    assert result.miou == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert result.accuracy == pytest.approx((2 / 3, 1))
    assert result.mean_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert result.pixel_accuracy == pytest.approx(3 / 4)
    assert result.absent == ()
    assert result.confusion == ((2, 0, 1), (0, 1, 0), (0, 1, 1))


def test_an_empty_rest_changes_no_score() -> None:
    plain, roomy = by_hand(), ConfusionMatrix(4)
    roomy.counts[:3, :3] = plain.counts
    without, beside = scores(plain, CLASSES), scores(roomy, CLASSES)
    assert without.iou[:2] == beside.iou[:2]
    assert without.miou == beside.miou
    assert without.pixel_accuracy == beside.pixel_accuracy
    assert without.mean_accuracy == beside.mean_accuracy
    assert without.absent == beside.absent


def test_means_over_sets_of_classes() -> None:
    three = Scores(
        iou=(0.5, math.nan, 0.25), miou=0.375, pixel_accuracy=1.0, absent=(), confusion=()
    )
    for classes, restricted, miou in (
        ((0, 2), False, 0.375),
        ((0, 1), False, 0.5),
        ((2,), False, 0.25),
        ((3, 5, 7), True, 0.375),  # of a matrix of its own
    ):
        class_set = ClassSet("some", classes, restricted, "some classes")
        assert set_miou(three, class_set) == miou
    assert math.isnan(set_miou(three, ClassSet("absent", (1,), False, "nothing")))
    with pytest.raises(AssertionError, match="its own matrix"):
        set_miou(three, ClassSet("two", (0, 2), True, "two classes"))


def test_inputs_are_left_alone() -> None:
    predictions, labels = torch.tensor([[[0, 1]]]), torch.tensor([[[IGNORE_INDEX, 1]]])
    ConfusionMatrix(2).update(predictions, labels)
    assert predictions.tolist() == [[[0, 1]]]
    assert labels.tolist() == [[[IGNORE_INDEX, 1]]]


@pytest.mark.parametrize(
    ("predictions", "labels", "message"),
    [
        ([[[0, 255]]], [[[0, 1]]], r"predictions outside 0\.\.2: 255;"),
        ([[[0, 3]]], [[[0, 255]]], r"predictions outside 0\.\.2: 3;"),
        ([[[0, -1]]], [[[0, 1]]], r"predictions outside 0\.\.2: -1;"),
        ([[[0, 1, 1]]], [[[3, 254, 7]]], r"labels outside 0\.\.2 that are not 255: 3, 7, 254;"),
        ([[[0, 1]]], [[[0], [1]]], r"\(1, 1, 2\) and labels \(1, 2, 1\) differ in size"),
        ([[[0.0, 1.0]]], [[[0, 1]]], r"predictions must be integer train ids, got torch.float32"),
    ],
)
def test_refusals_leave_the_counts_alone(
    predictions: list[list[list[float]]], labels: list[list[list[int]]], message: str
) -> None:
    matrix = ConfusionMatrix(3)
    with pytest.raises(InputError, match=message):
        matrix.update(torch.tensor(predictions), torch.tensor(labels))
    assert not matrix.counts.any()


def test_one_name_per_class_but_the_rest_is_required() -> None:
    for num_classes in (2, 5):
        with pytest.raises(InputError, match=f"3 class names for {num_classes} classes; allowed"):
            scores(ConfusionMatrix(num_classes), CLASSES)
