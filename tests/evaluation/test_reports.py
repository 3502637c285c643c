"""Reports, character by character."""

import json
import math

import pytest

from uda.evaluation.metrics import Scores
from uda.evaluation.reports import (
    absent_line,
    boundary_fact,
    fact_lines,
    iou_lines,
    markdown_table,
    scores_json,
    set_fact,
)
from uda.labels.class_sets import ClassSet

NAMES = ("road", "light", "motocycle")
FULL = Scores(
    iou=(0.893461, 0.205, 0.0),
    miou=0.366154,
    pixel_accuracy=0.9,
    absent=(),
    confusion=((8, 0, 0), (0, 1, 3), (0, 1, 0)),
)
PARTIAL = Scores(
    iou=(1.0, math.nan, 0.5),
    miou=0.75,
    pixel_accuracy=0.987654321,
    absent=("traffic light",),
    confusion=((4, 0, 0), (0, 0, 0), (0, 1, 2)),
)
EMPTY = Scores(
    iou=(math.nan,) * 3,
    miou=math.nan,
    pixel_accuracy=math.nan,
    absent=NAMES,
    confusion=((0,) * 3,) * 3,
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
    two = Scores(
        iou=(1.0, 0.5), miou=0.75, pixel_accuracy=1.0, absent=(), confusion=((1, 0), (0, 1))
    )
    results = {"three": scores_json(FULL, NAMES), "two": scores_json(two, NAMES[:2])}
    with pytest.raises(ValueError, match="different classes"):
        markdown_table(results)


def test_json_holds_plain_values() -> None:
    values = scores_json(PARTIAL, NAMES, run="toy", step=500)
    assert values == {
        "run": "toy",
        "step": 500,
        "miou": 75.0,
        "mean_accuracy": 83.3333,
        "pixel_accuracy": 98.7654,
        "per_class": {"road": 100.0, "light": None, "motocycle": 50.0},
        "per_class_accuracy": {"road": 100.0, "light": None, "motocycle": 66.6667},
    }
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert scores_json(EMPTY, NAMES)["miou"] is None


def test_a_fact_may_not_replace_a_score() -> None:
    with pytest.raises(TypeError, match="miou"):
        scores_json(FULL, NAMES, miou=99.0)


def test_values_with_their_definitions_are_facts() -> None:
    class_set = ClassSet("ends", (0, 2), False, "mean over both ends")
    assert set_fact(PARTIAL, class_set) == {"value": 75.0, "definition": "mean over both ends"}
    fact = boundary_fact(PARTIAL, NAMES, ratio=0.02)
    assert fact["value"] == 75.0
    assert fact["per_class"] == {"road": 100.0, "light": None, "motocycle": 50.0}
    assert "within 0.02 of the image's diagonal" in str(fact["definition"])
    assert set_fact(EMPTY, class_set)["value"] is None


def test_facts_are_one_line_each() -> None:
    facts = {
        "initial_weights": "drawn\nat random",
        "step": 500,
        "split": None,
        "published": {"preset": "aagc", "step": None, "miou": 44.42},
        "sets": {
            "miou16_subset": {"value": 45.5, "definition": "mean over 16"},
            "miou13_subset": {"value": None, "definition": "mean over 13"},
        },
        "boundary_iou": {
            "value": 12.5, "definition": "near edges", "per_class": {"road": 1.5, "car": None},
        },
    }  # fmt: skip
    assert fact_lines(facts) == [
        "initial weights: drawn at random",
        "step: 500",
        "split: -",
        "published: preset aagc, step -, miou 44.42",
        "sets miou16_subset: 45.5 (mean over 16)",
        "sets miou13_subset: - (mean over 13)",
        "boundary iou: 12.5 (near edges)",
        "boundary iou per_class: road 1.5, car -",
    ]
