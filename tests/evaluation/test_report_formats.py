"""Formats of scores, byte for byte; the boxes as the packages draw them that other projects use."""

import csv
import json
import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from prettytable import PrettyTable
from tabulate import tabulate

from uda.evaluation.metrics import ConfusionMatrix, Scores, scores
from uda.evaluation.report_formats import FORMATS, HOLDS_FACTS, format_scores
from uda.labels.spaces import CITYSCAPES, LabelSpace
from uda.utilities.errors import InputError

TOY = LabelSpace(
    name="toy3",
    classes=("road", "traffic light", "motorcycle"),
    report_names=("road", "light", "motocycle"),
    palette=((0, 0, 0),) * 3,
    raw_to_train={0: 0, 1: 1, 2: 2},
)
FACTS = {
    "initial_weights": "none",
    "step": 7,
    "share": math.nan,
    "sets": {"miou2": {"value": 50.0, "definition": "mean of two, or so"}},
}
FACT_LINES = [
    "initial weights: none",
    "step: 7",
    "share: nan",
    "sets miou2: 50.0 (mean of two, or so)",
]


def toy_scores() -> Scores:
    """IoU 2/4 and 1/3, recall 2/3 and 1/2; the third class is absent."""
    matrix = ConfusionMatrix(3)
    matrix.counts[:2, :2] = torch.tensor([[2, 1], [1, 1]])
    return scores(matrix, TOY.report_names)


def random_scores(kind: str) -> Scores:
    """Of 19 classes: random, with absent ones, all wrong, all right or nothing at all."""
    generator = torch.Generator().manual_seed(0)
    matrix = ConfusionMatrix(19)
    counts = torch.randint(0, 10**6, (19, 19), generator=generator)
    matrix.counts = {
        "some": counts + 10**7 * torch.eye(19).long(),
        "absent": counts.clone()
        .index_fill_(0, torch.tensor([3, 9]), 0)
        .index_fill_(1, torch.tensor([3, 12]), 0),
        "wrong": counts * (1 - torch.eye(19).long()),
        "right": counts * torch.eye(19).long(),
        "nothing": torch.zeros(19, 19).long(),
        "tiny": counts + torch.diag(10 ** torch.arange(19)),
    }[kind]
    return scores(matrix, CITYSCAPES.report_names)


KINDS = ("some", "absent", "wrong", "right", "nothing", "tiny")


# --- whole outputs by hand


def test_log() -> None:
    assert format_scores("log", toy_scores(), TOY, FACTS) == (
        "absent from labels and predictions, not in the mean: motocycle\n"
        "===>road:\t50.0\n===>light:\t33.33\n===>motocycle:\tnan\n===> mIoU: 41.67"
    )
    first = format_scores("log", random_scores("right"), CITYSCAPES, {}).splitlines()[0]
    assert first == "===>road:\t100.0"


def test_segmentron() -> None:
    assert format_scores("segmentron", toy_scores(), TOY, FACTS) == (
        "End validation pixAcc: 60.000, mIoU: 41.667\n"
        "Category iou: \n"
        " +------------+---------------+----------+\n"
        "|  class id  |  class name   |   iou    |\n"
        "+============+===============+==========+\n"
        "|     0      |     road      |   0.5    |\n"
        "+------------+---------------+----------+\n"
        "|     1      | traffic light | 0.333333 |\n"
        "+------------+---------------+----------+\n"
        "|     2      |  motorcycle   |   nan    |\n"
        "+------------+---------------+----------+"
    )


def test_mmseg() -> None:
    assert format_scores("mmseg", toy_scores(), TOY, FACTS) == (
        "per class results:\n"
        "\n"
        "+-----------+-------+-------+\n"
        "|   Class   |  IoU  |  Acc  |\n"
        "+-----------+-------+-------+\n"
        "|    road   |  50.0 | 66.67 |\n"
        "|   light   | 33.33 |  50.0 |\n"
        "| motocycle |  nan  |  nan  |\n"
        "+-----------+-------+-------+\n"
        "aAcc: 60.0000  mIoU: 41.6700  mAcc: 58.3300"
    )


def test_markdown() -> None:
    assert format_scores("markdown", toy_scores(), TOY, FACTS) == "\n".join(
        [
            *(f"- {line}" for line in FACT_LINES),
            "- pixel accuracy: 60.00",
            "",
            "| class | IoU | Acc |",
            "| --- | ---: | ---: |",
            "| road | 50.00 | 66.67 |",
            "| light | 33.33 | 50.00 |",
            "| motocycle | - | - |",
            "| mean | 41.67 | 58.33 |",
        ]
    )


def test_csv() -> None:
    assert format_scores("csv", toy_scores(), TOY, FACTS) == "\n".join(
        [
            *(f"# {line}" for line in FACT_LINES),
            "# pixel accuracy: 60.0",
            "class,iou,accuracy",
            "road,50.0000,66.6667",
            "light,33.3333,50.0000",
            "motocycle,,",
            "mean,41.6667,58.3333",
        ]
    )


def test_csv_is_read_by_the_csv_module() -> None:
    odd = replace(TOY, name="odd", report_names=('wall, "old"', "#1", "a b"))
    lines = format_scores("csv", toy_scores(), odd, FACTS).splitlines()
    rows = list(csv.DictReader(line for line in lines[len(FACT_LINES) + 1 :]))
    assert [row["class"] for row in rows] == ['wall, "old"', "#1", "a b", "mean"]
    assert [row["iou"] for row in rows] == ["50.0000", "33.3333", "", "41.6667"]


def test_json() -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = format_scores("json", toy_scores(), TOY, FACTS)
    assert json.loads(text, parse_constant=refuse) == {
        "initial_weights": "none",
        "step": 7,
        "share": None,
        "sets": {"miou2": {"value": 50.0, "definition": "mean of two, or so"}},
        "miou": 41.6667,
        "mean_accuracy": 58.3333,
        "pixel_accuracy": 60.0,
        "per_class": {"road": 50.0, "light": 33.3333, "motocycle": None},
        "per_class_accuracy": {"road": 66.6667, "light": 50.0, "motocycle": None},
    }


# --- as the other packages draw them

GRID: dict[str, Any] = {  # SegmenTron's call
    "tablefmt": "grid", "showindex": "always", "numalign": "center", "stralign": "center",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_segmentron_draws_what_tabulate_draws(kind: str) -> None:
    found = random_scores(kind)
    theirs = tabulate(
        list(zip(CITYSCAPES.classes, found.iou, strict=True)),
        ["class id", "class name", "iou"],
        **GRID,
    )
    text = format_scores("segmentron", found, CITYSCAPES, {})
    head, ours = text.split("\nCategory iou: \n ")
    assert ours == theirs
    accuracy, miou = 100 * found.pixel_accuracy, 100 * found.miou
    assert head == f"End validation pixAcc: {accuracy:.3f}, mIoU: {miou:.3f}"


@pytest.mark.parametrize("kind", KINDS)
def test_mmseg_draws_what_prettytable_draws(kind: str) -> None:
    found = random_scores(kind)
    table = PrettyTable()
    table.add_column("Class", list(CITYSCAPES.report_names))
    table.add_column("IoU", [round(100 * iou, 2) for iou in found.iou])
    table.add_column("Acc", [round(100 * accuracy, 2) for accuracy in found.accuracy])
    text = format_scores("mmseg", found, CITYSCAPES, {})
    head, empty, *ours, summary = text.splitlines()
    assert (head, empty) == ("per class results:", "")
    assert "\n".join(ours) == table.get_string()
    assert summary.startswith(f"aAcc: {round(100 * found.pixel_accuracy, 2):.4f}  mIoU: ")


@pytest.mark.parametrize("seed", range(6))
def test_names_of_any_length_are_centered_as_theirs(seed: int) -> None:
    rng = random.Random(seed)
    names = tuple("x" * rng.randint(1, 14) + str(index) + "y" for index in range(5))
    space = LabelSpace("some", names, names, ((0, 0, 0),) * 5, {i: i for i in range(5)})
    matrix = ConfusionMatrix(5)
    matrix.counts = torch.tensor([[rng.randint(0, 9) for _ in range(5)] for _ in range(5)])
    found = scores(matrix, names)
    rows = list(zip(names, found.iou, strict=True))
    grid = tabulate(rows, ["class id", "class name", "iou"], **GRID)
    box = PrettyTable(["Class", "IoU", "Acc"])
    for row in zip(names, found.iou, found.accuracy, strict=True):
        box.add_row([row[0], *(round(100 * value, 2) for value in row[1:])])
    assert format_scores("segmentron", found, space, {}).endswith(f"\n {grid}")
    assert f"\n\n{box.get_string()}\n" in format_scores("mmseg", found, space, {})


# --- all formats


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_takes_every_score(name: str, kind: str) -> None:
    text = format_scores(name, random_scores(kind), CITYSCAPES, {})
    assert text == text.rstrip("\n")
    names = CITYSCAPES.classes if name == "segmentron" else CITYSCAPES.report_names
    assert all(class_name in text for class_name in names)


@pytest.mark.parametrize("name", FORMATS)
def test_facts_are_held_by_the_formats_that_say_so(name: str) -> None:
    facts = {"supervision": "ground truth (5 images)"}
    text = format_scores(name, toy_scores(), TOY, facts)
    assert ("ground truth (5 images)" in text) == (name in HOLDS_FACTS)


def test_unknown_formats() -> None:
    with pytest.raises(InputError, match=r"no format of scores .mmsg.; did you mean .mmseg."):
        format_scores("mmsg", toy_scores(), TOY, {})
