"""The alarm of shifted and exchanged names: it sounds for those, and for no bad network."""

import json
import re
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pytest
import torch

from factories import write_png
from shells import Shell
from uda.evaluation.metrics import ConfusionMatrix, Scores, scores
from uda.evaluation.name_check import name_warning
from uda.labels.spaces import CITYSCAPES

Counts = npt.NDArray[np.int64]
Draw = Callable[[np.random.Generator, int], Counts]

# What document 000 reports of its classes: (name, labeled pixels in thousands, recall in percent).
# The pixels are made up; the recalls are its own. Most classes are hardly known.
CLOTHES = (
    ("background", 9000, 98.6), ("accessories", 40, 64.0), ("bag", 120, 58.1), ("belt", 20, 10.2),
    ("blazer", 90, 8.0), ("blouse", 100, 34.4), ("bodysuit", 1, 0.4), ("boots", 60, 13.2),
    ("bra", 1, 0.0), ("bracelet", 3, 3.1), ("cape", 9, 2.9), ("cardigan", 70, 0.0),
    ("clogs", 2, 0.0), ("coat", 200, 73.1), ("dress", 300, 74.0), ("earrings", 1, 0.0),
    ("flats", 9, 0.0), ("glasses", 3, 0.6), ("gloves", 2, 1.2), ("hair", 400, 91.7),
    ("hat", 30, 37.0), ("heels", 20, 0.0), ("jacket", 200, 48.2), ("jeans", 200, 64.9),
    ("pants", 250, 77.7), ("shoes", 150, 73.8), ("skin", 700, 93.8), ("wedges", 2, 0.0),
)  # fmt: skip
NAMES = tuple(name for name, *_ in CLOTHES)


def clothes() -> Counts:
    """A confusion matrix of them: the pixels missed are taken for clothes that are often seen."""
    labeled = np.array([1000 * thousands for _, thousands, _ in CLOTHES])
    recall = np.array([percent / 100 for *_, percent in CLOTHES])
    missed = labeled * (1 - recall)
    share = labeled / labeled.sum()
    counts = missed[:, None] * share[None]
    counts[np.diag_indices(len(labeled))] += labeled * recall
    return counts.astype(np.int64)


def scored(counts: Counts, names: Sequence[str] = ()) -> Scores:
    matrix = ConfusionMatrix(len(counts))
    matrix.counts = torch.from_numpy(np.ascontiguousarray(counts))
    return scores(matrix, names or [f"class {index}" for index in range(len(counts))])


def said(counts: Counts, names: Sequence[str] = ()) -> str:
    result = scored(counts, names)
    return name_warning(result, names or [f"class {index}" for index in range(len(counts))])


def good(classes: int, *, recall: float = 0.9, pixels: int = 10_000) -> Counts:
    """Every class is found, and the rest of its pixels is spread over the others."""
    missed = pixels * (1 - recall) / (classes - 1)
    counts = np.full((classes, classes), missed)
    counts[np.diag_indices(classes)] = pixels * recall
    return counts.astype(np.int64)


# --- names that are wrong


def test_names_shifted_by_one_as_in_document_000() -> None:
    """Its network was trained on label - 1, background ignored; here its labels are as stored."""
    counts = np.roll(clothes(), -1, axis=1)  # what is class k is predicted as class k - 1
    message = said(counts, NAMES)
    assert message.startswith("names are shifted by one: ")
    assert "\n" not in message
    assert "bag is predicted as accessories" in message
    then, now = map(float, re.findall(r"mIoU would be ([\d.]+), not ([\d.]+)", message)[0])
    assert then == pytest.approx(100 * scored(clothes()).miou, abs=0.01)
    assert now == pytest.approx(100 * scored(counts).miou, abs=0.01)


@pytest.mark.parametrize("places", [1, -1, 2, -3, 5])
def test_a_shift_is_reported_in_both_directions(places: int) -> None:
    message = said(np.roll(good(19), places, axis=1))
    number = {1: "one", 2: "two", 3: "three"}.get(abs(places), str(abs(places)))
    assert message.startswith(f"names are shifted by {number}: ")


def test_a_shift_without_the_class_that_falls_off() -> None:
    """Labels whose zero was reduced have no row of the last class, and no column of it either."""
    counts = np.roll(clothes(), -1, axis=1)
    counts[0] = 0
    counts[:, -1] = 0
    assert said(counts, NAMES).startswith("names are shifted by one: ")


def test_a_pair_exchanged_in_an_otherwise_good_matrix() -> None:
    counts = good(19)
    counts[:, [4, 13]] = counts[:, [13, 4]]
    message = said(counts)
    assert message.startswith(
        "2 names are exchanged: class 4 is predicted as class 13, class 13 is predicted as class 4;"
    )


def test_three_names_in_a_circle() -> None:
    counts = good(19)
    counts[:, [2, 7, 11]] = counts[:, [7, 11, 2]]
    message = said(counts)
    assert message.startswith("3 names are exchanged: ")
    assert "class 7 is predicted as class 2" in message


def test_a_matrix_with_a_rest_is_judged_without_it() -> None:
    counts = np.zeros((20, 20), np.int64)
    counts[:19, :19] = np.roll(good(19), 1, axis=1)
    counts[:19, 19] = 50
    names = [f"class {index}" for index in range(19)]
    matrix = ConfusionMatrix(20)
    matrix.counts = torch.from_numpy(counts)
    assert name_warning(scores(matrix, names), names).startswith("names are shifted by one")


def test_classes_of_a_few_pixels_speak_neither_for_nor_against_a_shift() -> None:
    """Six classes of many pixels have moved by one, five of few pixels are where they belong."""
    counts = np.zeros((12, 12), np.int64)
    for row in range(6):
        counts[row, row + 1] = 9000
    for row in range(7, 12):
        counts[row, row] = 900
    assert said(counts).startswith("names are shifted by one: ")
    counts *= 2  # now they are many
    assert said(counts) == ""


def test_the_means_in_the_warning_are_those_of_the_report() -> None:
    """Classes that are not scored have no part in them, whether the names are right or not."""
    counts = np.roll(good(19), 1, axis=1)
    names = [f"class {index}" for index in range(19)]
    matrix = ConfusionMatrix(19)
    matrix.counts = torch.from_numpy(counts)
    matrix.counts[18] = 0  # so that it would count as 0 with any name
    result = scores(matrix, names, unscored=(18,))
    found = re.search(r"mIoU would be ([\d.]+), not ([\d.]+):", name_warning(result, names))
    assert found is not None
    renamed, now = map(float, found.groups())
    assert now == pytest.approx(100 * result.miou, abs=0.005)
    assert renamed == pytest.approx(100 * np.mean([9000 / 10944] + 16 * [9000 / 10945]), abs=0.5)


# --- networks that are bad, and names that are right


def test_a_good_and_a_poor_network_are_left_in_peace() -> None:
    assert said(good(19)) == ""
    assert said(good(19, recall=0.15)) == ""
    assert said(clothes(), NAMES) == ""


def test_a_network_that_knows_one_class_only() -> None:
    counts = np.zeros((19, 19), np.int64)
    counts[:, 8] = np.arange(1, 20) * 10_000
    assert said(counts) == ""
    counts[18, 8] *= 100  # and not even the largest one
    assert said(counts) == ""


def test_classes_that_have_swallowed_others() -> None:
    """Each of four large classes goes by the name of a rare one, which is nowhere else."""
    counts = good(12, recall=0.95)
    for large, rare in ((0, 8), (1, 9), (2, 10), (3, 11)):
        counts[large, rare], counts[large, large] = counts[large, large], 0
    assert said(counts) == ""


def test_two_classes_taken_for_each_other() -> None:
    for wrong in (5000, 6000, 7500, 8000):  # of 10,000
        counts = good(19)
        counts[np.ix_([4, 13], [4, 13])] = [[10_000 - wrong, wrong], [wrong, 10_000 - wrong]]
        assert said(counts) == ""


def test_a_circle_in_a_network_that_knows_nothing_else_is_chance() -> None:
    counts = good(19, recall=1 / 19)
    counts[np.ix_([4, 13], [4, 13])] = [[0, 10_000], [10_000, 0]]
    assert said(counts) == ""


def test_a_few_pixels_prove_nothing() -> None:
    assert said(np.array([[0, 9], [9, 0]])) == ""
    assert said(np.roll(good(19, pixels=100), 1, axis=1)) == ""
    assert said(np.zeros((19, 19), np.int64)) == ""
    assert said(np.array([[5]])) == ""


def _half_trained(rng: np.random.Generator, classes: int) -> Counts:
    """Long-tailed labels; each class is known to some degree, or gets lost in a few others."""
    labeled = 1e6 * rng.dirichlet(np.full(classes, 0.3)) + 1
    known = rng.beta(0.4, 0.6, classes)
    elsewhere = rng.dirichlet(np.full(classes, 0.2) * classes * labeled / labeled.sum(), classes)
    counts = labeled[:, None] * (1 - known[:, None]) * elsewhere
    counts[np.diag_indices(classes)] += labeled * known
    return counts.astype(np.int64)


def _lost(rng: np.random.Generator, classes: int) -> Counts:
    """Every class is taken for a few random classes, whatever its own is."""
    labeled = 1e6 * rng.dirichlet(np.ones(classes)) + 1
    return (labeled[:, None] * rng.dirichlet(np.full(classes, 0.3), classes)).astype(np.int64)


@pytest.mark.parametrize("draw", [_half_trained, _lost])
@pytest.mark.parametrize("classes", [19, 59])
def test_no_false_alarm_in_random_networks(draw: Draw, classes: int) -> None:
    rng = np.random.default_rng(0)
    alarms = sum(bool(said(draw(rng, classes))) for _ in range(300))
    assert alarms == 0


def test_hardly_an_alarm_in_networks_of_few_classes() -> None:
    """Of a few classes wired at random, two are sometimes really exchanged."""
    rng = np.random.default_rng(0)
    assert sum(bool(said(_half_trained(rng, 6))) for _ in range(300)) <= 3
    assert sum(bool(said(_lost(rng, 6))) for _ in range(300)) <= 9


def test_score_folder_says_so_in_print_and_in_json(shell: Shell) -> None:
    ids = np.repeat(np.arange(19, dtype=np.uint8), 40)[None].repeat(40, axis=0)  # stripes
    labels = CITYSCAPES.to_raw_ids(ids, ignored=0)
    write_png(shell.cwd / "gt/a/a_000000_000019_gtFine_labelIds.png", labels)
    write_png(shell.cwd / "found/a_000000_000019.png", np.maximum(ids, 1) - 1)
    out = shell.run("scripts/score_folder.py", "found", "gt", "--json", "scores.json")
    written = json.loads((shell.cwd / "scores.json").read_text())["name_warning"]
    assert written.startswith("names are shifted by one: building is predicted as sidewalk")
    assert f"name warning: {written}\n" in out
