"""Reports, character by character."""

import json
import math

import pytest

from uda.metrics import Scores
from uda.reports import absent_line, iou_lines, markdown_table, scores_json

NAMES = ("road", "light", "motocycle")
FULL = Scores(
    iou=(0.893461, 0.205, 0.0), miou=0.366154, pixel_accuracy=0.9, absent=(), confusion=()
)
PARTIAL = Scores(
    iou=(1.0, math.nan, 0.5),
    miou=0.75,
    pixel_accuracy=0.987654321,
    absent=("traffic light",),
    confusion=(),
)
EMPTY = Scores(
    iou=(math.nan,) * 3, miou=math.nan, pixel_accuracy=math.nan, absent=NAMES, confusion=()
)


def test_lines_are_those_of_the_log() -> None:
    assert iou_lines(FULL, NAMES) == (
        "===>road:\t89.35\n===>light:\t20.5\n===>motocycle:\t0.0\n===> mIoU: 36.62"
    )


def test_absent_classes_print_nan() -> None:
    assert iou_lines(PARTIAL, NAMES) == (
        "===>road:\t100.0\n===>light:\tnan\n===>motocycle:\t50.0\n===> mIoU: 75.0"
    )
    assert iou_lines(EMPTY, NAMES).endswith("===> mIoU: nan")


def test_lines_need_one_name_per_class() -> None:
    with pytest.raises(ValueError, match="zip"):
        iou_lines(FULL, NAMES[:2])


def test_absent_classes_are_listed() -> None:
    assert absent_line(FULL) == ""
    assert absent_line(PARTIAL) == (
        "absent from labels and predictions, not in the mean: traffic light"
    )


def test_table_compares_methods() -> None:
    results = {"source only": scores_json(FULL, NAMES), "dacs": scores_json(PARTIAL, NAMES)}
    assert markdown_table(results) == (
        "| class | source only | dacs |\n"
        "| --- | ---: | ---: |\n"
        "| mIoU | 36.62 | 75.00 |\n"
        "| road | 89.35 | 100.00 |\n"
        "| light | 20.50 | - |\n"
        "| motocycle | 0.00 | 50.00 |"
    )


def test_supervision_stands_above_the_scores() -> None:
    results = {
        "dacs": scores_json(FULL, NAMES, supervision="none"),
        "oracle": scores_json(FULL, NAMES, supervision="ground truth (5 images)"),
    }
    assert markdown_table(results).splitlines()[2:4] == [
        "| supervision | none | ground truth (5 images) |",
        "| mIoU | 36.62 | 36.62 |",
    ]


def test_results_of_different_classes_are_no_table() -> None:
    two = Scores(iou=(1.0, 0.5), miou=0.75, pixel_accuracy=1.0, absent=(), confusion=())
    results = {"three": scores_json(FULL, NAMES), "two": scores_json(two, NAMES[:2])}
    with pytest.raises(ValueError, match="different classes"):
        markdown_table(results)


def test_json_holds_plain_values() -> None:
    values = scores_json(PARTIAL, NAMES, run="toy", step=500)
    assert values == {
        "run": "toy",
        "step": 500,
        "miou": 75.0,
        "pixel_accuracy": 98.7654,
        "per_class": {"road": 100.0, "light": None, "motocycle": 50.0},
    }
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert scores_json(EMPTY, NAMES)["miou"] is None


def test_a_fact_may_not_replace_a_score() -> None:
    with pytest.raises(TypeError, match="miou"):
        scores_json(FULL, NAMES, miou=99.0)
