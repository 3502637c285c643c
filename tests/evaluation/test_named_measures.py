"""Further measures, worked out by hand."""

from dataclasses import replace

import pytest
import torch

from uda.evaluation.measures import Tally
from uda.labels.spaces import CITYSCAPES

SPACE = replace(
    CITYSCAPES,
    name="three",
    classes=("a", "b", "c"),
    report_names=("a", "b", "c"),
    palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)),
    raw_to_train={0: 0, 1: 1, 2: 2},
)


def test_f1_is_of_the_whole_data_set_and_of_the_classes_that_are_there() -> None:
    tally = Tally(SPACE, measures=("f1",))
    tally.add(torch.tensor([[0, 0, 0, 1]]), torch.tensor([[0, 0, 1, 1]]))
    tally.add(torch.tensor([[1, 1, 1, 1]]), torch.tensor([[1, 1, 255, 0]]))
    fact = tally.measured().facts["f1"]
    # a: 2 right, 1 predicted wrongly, 1 missed; b: 3 right, 1 wrongly, 1 missed; c: nowhere
    a, b = 2 * 2 / (2 * 2 + 1 + 1), 2 * 3 / (2 * 3 + 1 + 1)
    assert isinstance(fact, dict)
    assert fact["per_class"] == {"a": round(100 * a, 4), "b": 75.0, "c": None}
    assert fact["value"] == pytest.approx(100 * (a + b) / 2, abs=1e-4)
    assert "over all pixels of the data set" in fact["definition"]
