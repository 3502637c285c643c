"""Reducing the zero label: names, colors, ids and sides move together."""

import numpy as np
import pytest

from uda.labels.spaces import LabelSpace
from uda.labels.zero_label import reduce_zero_label
from uda.utilities.errors import InputError

BODY = LabelSpace(
    name="body",
    classes=("background", "left hand", "right hand", "head"),
    report_names=("bg", "l-hand", "r-hand", "head"),
    palette=((0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 3, 3)),
    raw_to_train={0: 0, 10: 1, 20: 2, 30: 3, 40: 255},
    mirror_swaps=((1, 2),),
    unscored=(0, 3),
)


def test_everything_moves_together() -> None:
    reduced = reduce_zero_label(BODY, name="body3")
    assert reduced == LabelSpace(
        name="body3",
        classes=("left hand", "right hand", "head"),
        report_names=("l-hand", "r-hand", "head"),
        palette=((1, 1, 1), (2, 2, 2), (3, 3, 3)),
        raw_to_train={0: 255, 10: 0, 20: 1, 30: 2, 40: 255},
        mirror_swaps=((0, 1),),
        unscored=(2,),
    )


def test_every_pixel_keeps_its_name_and_its_color() -> None:
    raw = np.array([[0, 10, 20, 30, 40]], np.uint8)
    before, after = BODY, reduce_zero_label(BODY, name="body3")
    old, new = before.to_train_ids(raw, "x")[0], after.to_train_ids(raw, "x")[0]
    assert new.tolist() == [255, 0, 1, 2, 255]
    for one, other in zip(old[1:4], new[1:4], strict=True):
        assert before.classes[one] == after.classes[other]
        assert before.report_names[one] == after.report_names[other]
    assert np.array_equal(before.colorize(old[1:4]), after.colorize(new[1:4]))
    assert after.mirror(new[None]).tolist() == [[255, 2, 0, 1, 255]]
    assert after.to_raw_ids(new[None, 1:4], ignored=0).tolist() == [[10, 20, 30]]


def test_what_cannot_be_reduced_is_refused() -> None:
    one = LabelSpace(
        name="one", classes=("a",), report_names=("a",), palette=((0, 0, 0),), raw_to_train={0: 0}
    )
    with pytest.raises(InputError, match="one has one class: without it there would be none"):
        reduce_zero_label(one, name="none")
    with pytest.raises(InputError, match="left hand changes places with another class"):
        reduce_zero_label(reduce_zero_label(BODY, name="body3"), name="body2")
