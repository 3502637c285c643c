"""Boundary IoU by hand, and against the definition: erosions of every class's mask."""

import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.ndimage import binary_erosion
from torch import Tensor

from uda.evaluation.boundaries import BoundaryMatrix, boundary_distance, to_boundaries
from uda.evaluation.metrics import scores
from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.errors import InputError

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
REST = 9
CLASSES = 4
NAMES = ("road", "car", "sky", "train")
Bools = npt.NDArray[np.bool_]


def boundaries(rows: list[str], *, distance: int = 1) -> list[str]:
    """Digits are classes; `.` is ignored where it comes in, and an interior where it goes out."""
    labels = torch.tensor([[IGNORE_INDEX if c == "." else int(c) for c in row] for row in rows])
    ignored = labels == IGNORE_INDEX
    found = to_boundaries(labels, ignored, distance=distance, interior=REST)
    spelled = {REST: ".", IGNORE_INDEX: "x"}
    return ["".join(spelled.get(int(v), str(int(v))) for v in row) for row in found]


def test_the_border_of_the_image_is_an_edge() -> None:
    square = ["0" * 7] * 6
    frame = ["0000000", *["0.....0"] * 4, "0000000"]
    assert boundaries(square) == frame
    assert boundaries(square, distance=2) == [
        "0000000", "0000000", "00...00", "00...00", "0000000", "0000000",
    ]  # fmt: skip
    assert boundaries(square, distance=3) == square
    assert boundaries(square, distance=50) == square


def test_both_sides_of_an_edge_and_its_corners() -> None:
    assert boundaries(["0" * 7, "0" * 7, "0" * 7, "0001000", "0" * 7, "0" * 7, "0" * 7]) == [
        "0000000",
        "0.....0",
        "0.000.0",
        "0.010.0",
        "0.000.0",
        "0.....0",
        "0000000",
    ]


def test_ignored_pixels_are_no_edge() -> None:
    assert boundaries(["0" * 5, "0" * 5, "00.00", "0" * 5, "0" * 5]) == [
        "00000", "0...0", "0.x.0", "0...0", "00000",
    ]  # fmt: skip
    # ... and hide none: what lies behind them is still another class.
    assert boundaries(["0000000", "0000000", "00..110", "0000000", "0000000"], distance=2) == [
        "0000000", "0000000", "00xx110", "0000000", "0000000",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("size", "ratio", "distance"),
    [
        ((1024, 2048), 0.005, 11),
        ((1024, 2048), 0.02, 46),
        ((30, 40), 0.01, 1),  # 0.5 pixels
        ((30, 40), 0.05, 2),  # 2.5: to even, as Python and the authors round
        ((30, 40), 0.07, 4),  # 3.5
    ],
)
def test_distances(size: tuple[int, int], ratio: float, distance: int) -> None:
    assert boundary_distance(size, ratio) == distance


def blobs(seed: int, size: tuple[int, int], *, classes: int) -> Tensor:
    """(2, H, W) uint8: patches of several sizes on each other, edges of the image among them."""
    rng = np.random.default_rng(seed)
    maps = np.zeros((2, *size), np.uint8)
    for image in maps:
        for _ in range(12):
            top, left = rng.integers(-6, size[0]), rng.integers(-6, size[1])
            height, width = rng.integers(1, 14, 2)
            rows = slice(max(0, top), max(0, top + height))
            image[rows, max(0, left) : max(0, left + width)] = rng.integers(classes)
    return torch.from_numpy(maps)


def eroded_away(mask: Bools, ignored: Bools, distance: int) -> Bools:
    """The pixels of `mask` that `distance` erosions take from it, in an image framed with zeros;
    ignored pixels, which may be of the class, are not what it is eroded from."""
    framed = np.pad(mask | ignored, 1)
    left = binary_erosion(framed, np.ones((3, 3), bool), iterations=distance, border_value=1)
    found: Bools = mask & ~left[1:-1, 1:-1]
    return found


def iou_by_definition(predictions: Tensor, labels: Tensor, ratio: float) -> list[float]:
    distance = boundary_distance((labels.shape[1], labels.shape[2]), ratio)
    found = []
    for train_id in range(CLASSES):
        both = either = 0
        for ours, true in zip(predictions.numpy(), labels.numpy(), strict=True):
            ignored = true == IGNORE_INDEX
            edges = [
                eroded_away((ids == train_id) & ~ignored, ignored, distance) for ids in (ours, true)
            ]
            both += int((edges[0] & edges[1]).sum())
            either += int((edges[0] | edges[1]).sum())
        found.append(both / either if either else math.nan)
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("size", "ratio"),
    [((23, 31), 0.02), ((23, 31), 0.06), ((16, 40), 0.1), ((9, 9), 0.9), ((1, 12), 0.05)],
)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_scores_are_those_of_the_definition(
    size: tuple[int, int], ratio: float, dtype: torch.dtype, device: str
) -> None:
    seed = size[0] * size[1]
    labels, predictions = blobs(seed, size, classes=CLASSES - 1), blobs(seed, size, classes=3)
    predictions = predictions.roll(1, 2)
    predictions[:, :2] = blobs(seed + 1, size, classes=CLASSES + 1)[:, :2]  # no class among them
    labels[blobs(seed + 2, size, classes=5) == 4] = IGNORE_INDEX
    matrix = BoundaryMatrix(CLASSES, ratio)
    for pair in zip(predictions.split(1), labels.split(1), strict=True):
        matrix.update(*(ids.to(device, dtype) for ids in pair))
    result = scores(matrix, NAMES)
    expected = iou_by_definition(predictions, labels, ratio)
    assert result.iou == pytest.approx(expected, nan_ok=True)
    assert any(0 < iou < 1 for iou in expected), "or else this shows little"


def test_a_wide_boundary_is_everything() -> None:
    """Then the boundary scores are the plain ones."""
    labels, predictions = blobs(0, (12, 9), classes=CLASSES), blobs(1, (12, 9), classes=CLASSES)
    matrix = BoundaryMatrix(CLASSES, 1.0)
    matrix.update(predictions, labels)
    assert int(matrix.counts.sum()) == labels.numel()
    assert int(matrix.counts[:, -1].sum()) == int(matrix.counts[-1].sum()) == 0


def test_perfect_predictions_and_inputs_left_alone() -> None:
    labels = blobs(0, (20, 30), classes=CLASSES)
    labels[:, 3:9, 4:7] = IGNORE_INDEX
    predictions = labels.clone()
    predictions[labels == IGNORE_INDEX] = 0
    before = predictions.clone(), labels.clone()
    matrix = BoundaryMatrix(CLASSES, 0.05)
    matrix.update(predictions, labels)
    assert scores(matrix, NAMES).miou == 1.0
    assert torch.equal(predictions, before[0])
    assert torch.equal(labels, before[1])


def test_a_shift_by_the_width_of_the_boundary() -> None:
    labels = torch.zeros(1, 40, 40, dtype=torch.uint8)
    labels[:, 10:30, 10:30] = 1
    predictions = labels.roll(2, 2)
    matrix = BoundaryMatrix(CLASSES, 0.04)
    matrix.update(predictions, labels)
    # A ring of width 2, 144 pixels, moved by 2: of its 20 rows the upper and lower 2 overlap in 18
    # pixels, the other 16 in none of their left and right 2.
    assert scores(matrix, NAMES).iou[1] == pytest.approx(72 / (288 - 72))


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.5, math.nan])
def test_ratios_that_make_no_sense(ratio: float) -> None:
    with pytest.raises(InputError, match=r"a boundary ratio of .*; allowed: above 0, at most 1"):
        BoundaryMatrix(CLASSES, ratio)


def test_refusals_leave_the_counts_alone() -> None:
    with pytest.raises(InputError, match="boundaries of 253 classes; allowed: fewer than 253"):
        BoundaryMatrix(253, 0.1)
    matrix = BoundaryMatrix(CLASSES, 0.1)
    labels = torch.zeros(1, 4, 4).long()
    for predictions, message in (
        (labels + 260, "predictions outside"),
        (labels[:, :3], "differ in size"),
    ):
        with pytest.raises(InputError, match=message):
            matrix.update(predictions, labels)
    assert not matrix.counts.any()
