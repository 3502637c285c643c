"""Sets of classes: which they are, what they say of themselves, and where classes stand in them."""

import pytest
import torch

from uda.data.datasets.clothes import CLOTHES59_CLASSES
from uda.labels.class_sets import CLASS_SETS, ClassSet, class_set_named
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.utilities.errors import InputError

SETS = CLASS_SETS["cityscapes19"]


def left_out(class_set: ClassSet) -> set[str]:
    return set(CITYSCAPES.classes) - {CITYSCAPES.classes[i] for i in class_set.classes}


@pytest.mark.parametrize(
    ("name", "count", "without"),
    [
        ("miou19", 19, set()),
        ("miou16_subset", 16, {"terrain", "truck", "train"}),
        ("miou13_subset", 13, {"wall", "fence", "pole", "terrain", "truck", "train"}),
        ("miou16_restricted", 16, {"terrain", "truck", "train"}),
    ],
)
def test_sets(name: str, count: int, without: set[str]) -> None:
    class_set = class_set_named(name, space=CITYSCAPES)
    assert class_set.name == name
    assert len(class_set.classes) == count
    assert left_out(class_set) == without
    assert class_set.classes == tuple(sorted(class_set.classes))
    assert class_set.restricted == (name == "miou16_restricted")


def test_definitions_are_different_sentences_that_name_what_is_left_out() -> None:
    assert len({class_set.definition for class_set in SETS.values()}) == len(SETS) == 4
    for class_set in SETS.values():
        assert "\n" not in class_set.definition
        assert str(len(class_set.classes)) in class_set.definition
        assert all(name in class_set.definition for name in left_out(class_set))
        assert ("are ignored" in class_set.definition) == class_set.restricted


def test_positions_of_classes_within_a_set() -> None:
    restricted = SETS["miou16_restricted"]
    labels = torch.tensor([[0, 8, 9, 10], [14, 15, 16, 17], [18, 254, IGNORE_INDEX, 13]])
    expected = [[0, 8, 255, 9], [255, 13, 255, 14], [15, 255, 255, 12]]
    for dtype in (torch.uint8, torch.int64):
        found = restricted.positions(labels.to(dtype))
        assert found.dtype == torch.int64
        assert found.tolist() == expected
    assert labels[0, 2] == 9, "the labels are left alone"


def test_positions_and_classes_are_inverse() -> None:
    for class_set in SETS.values():
        classes = torch.tensor(class_set.classes)
        assert class_set.positions(classes).tolist() == list(range(len(classes)))


def test_unknown_sets() -> None:
    with pytest.raises(InputError, match=r"no set of classes .miou16.; did you mean .miou19"):
        class_set_named("miou16", space=CITYSCAPES)
    with pytest.raises(InputError, match="label space clothes59 has no sets of classes; known: ci"):
        class_set_named("miou19", space=CLOTHES59_CLASSES)
