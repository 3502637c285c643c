"""The Cityscapes classes: raw ids, train ids, colors."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

from uda.data.registry import LABEL_SPACES
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX, LabelSpace
from uda.utilities.errors import InputError

# Of the experiment log: raw id -> train id. Every other raw id is ignored.
BY_HAND = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip


def test_raw_ids_become_train_ids_as_in_the_log() -> None:
    raw = np.arange(35, dtype=np.uint8).reshape(5, 7)
    train = CITYSCAPES.to_train_ids(raw, "file.png")
    assert train.dtype == np.uint8
    assert train.shape == (5, 7)
    assert train.ravel().tolist() == [BY_HAND.get(raw_id, IGNORE_INDEX) for raw_id in range(35)]
    assert raw.ravel().tolist() == list(range(35))


def test_classes_colors_and_names_are_in_the_order_of_train_ids() -> None:
    assert CITYSCAPES.num_classes == 19
    assert len(CITYSCAPES.palette) == len(CITYSCAPES.report_names) == 19
    assert LABEL_SPACES["cityscapes19"] is CITYSCAPES
    assert " ".join(CITYSCAPES.report_names) == (
        "road sidewalk building wall fence pole light sign vegetation terrain sky person rider car "
        "truck bus train motocycle bicycle"
    )
    assert CITYSCAPES.classes[6] == "traffic light"
    assert CITYSCAPES.classes[17] == "motorcycle"


@pytest.mark.parametrize("value", [35, 100, 254, 255])
def test_values_that_are_no_raw_ids_are_refused(value: int) -> None:
    raw = np.full((4, 4), 7, np.uint8)
    raw[3, 3] = value
    with pytest.raises(InputError) as refusal:
        CITYSCAPES.to_train_ids(raw, "folder/file.png")
    message = str(refusal.value)
    assert f"folder/file.png: label values {value} are outside the raw ids of" in message
    assert "cityscapes19 (0..34)" in message
    assert "255 means the file has train ids already" in message


def test_many_odd_values_are_counted_not_listed() -> None:
    raw = np.arange(30, 90, dtype=np.uint8)[None]
    with pytest.raises(InputError, match=r"values 35, 36, 37, 38, 39, \.\.\. \(55 in all\) are"):
        CITYSCAPES.to_train_ids(raw, "file.png")


def test_train_ids_survive_the_way_to_raw_ids_and_back() -> None:
    train = np.array([[*range(19), IGNORE_INDEX]], dtype=np.uint8)
    raw = CITYSCAPES.to_raw_ids(train, ignored=1)
    assert raw.dtype == np.uint8
    assert raw.tolist() == [[*BY_HAND, 1]]
    assert CITYSCAPES.to_train_ids(raw, "back").tolist() == train.tolist()


def test_colorize_uses_the_palette_and_black() -> None:
    train = np.array([[0, 11], [18, IGNORE_INDEX]])
    colors = CITYSCAPES.colorize(train)
    assert colors.dtype == np.uint8
    assert colors.tolist() == [[[128, 64, 128], [220, 20, 60]], [[119, 11, 32], [0, 0, 0]]]


def test_a_label_space_can_be_sent_to_another_process() -> None:
    copy = pickle.loads(pickle.dumps(CITYSCAPES))
    assert copy == CITYSCAPES
    raw = np.arange(35, dtype=np.uint8)[None]
    ours, theirs = CITYSCAPES.to_train_ids(raw, "ours"), copy.to_train_ids(raw, "theirs")
    assert np.array_equal(ours, theirs)


SIDES = LabelSpace(
    name="sides",
    classes=("background", "left", "right"),
    report_names=("background", "left", "right"),
    palette=((0, 0, 0), (1, 0, 0), (0, 1, 0)),
    raw_to_train={0: 0, 1: 1, 2: 2},
    mirror_swaps=((1, 2),),
)


def test_left_is_right_in_the_mirror() -> None:
    labels = np.array([[0, 1, 1, 255], [2, 0, 1, 2]], np.uint8)
    assert SIDES.mirror(labels).tolist() == [[255, 2, 2, 0], [1, 2, 0, 1]]
    assert SIDES.mirror(SIDES.mirror(labels)).tolist() == labels.tolist()
    assert SIDES.mirrored == (0, 2, 1)
    assert replace(SIDES, mirror_swaps=()).mirror(labels).tolist() == labels[:, ::-1].tolist()


def test_raw_ids_that_are_one_higher_are_not_suspected_of_being_train_ids() -> None:
    """The sixth class of such a set may be in none of the files looked at."""
    shifted = replace(SIDES, raw_to_train={0: IGNORE_INDEX, 1: 0, 2: 1, 3: 2})
    assert not any(space.may_hold_train_ids(2) for space in (SIDES, shifted))
    assert CITYSCAPES.may_hold_train_ids(18)
