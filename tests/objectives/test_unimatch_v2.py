"""UniMatch V2: complementary channels, boxes from the reversed batch, and whose pixels count."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from uda.data.batch import Batch
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.functional.complementary import (
    boxes,
    chosen_images,
    drop_channels,
    reversed_batch,
)
from uda.objectives.unimatch_v2 import UniMatchV2Config
from uda.utilities.errors import InputError

SIZE = (12, 16)


def generators(count: int, seed: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed + number) for number in range(count)]


def batch_of(images: Tensor, valid: Tensor | None = None) -> Batch:
    count, _, *size = images.shape
    return Batch(
        source_images=images[:0],
        source_labels=torch.zeros(0, *size, dtype=torch.int64),
        target_images=images,
        target_pseudo_labels=None,
        indices=tuple(range(20, 20 + count)),
        source_names=("",) * count,
        target_names=("",) * count,
        target_valid=valid,
    )


def teacher(images: Tensor) -> Tensor:
    """Sure of class 1 in the left half, undecided in the right one."""
    logits = torch.zeros(len(images), 2, *images.shape[-2:])
    logits[:, 1, :, : images.shape[-1] // 2] = 9
    return logits


def context(batch: Batch) -> StepContext:
    return StepContext(step=0, seed=0, indices=batch.indices, teacher=teacher)


PLAIN = UniMatchV2Config(jitter=None, cut_mix=0.0)


def test_complementary_factors_add_up_to_2() -> None:
    maps = (torch.ones(3, 32, 2, 2), torch.ones(3, 32, 1, 1), torch.ones(3, 8, 4, 4))
    whole = torch.tensor([False, True, False])
    first = drop_channels(maps, generators(3), whole, complement=False)
    second = drop_channels(maps, generators(3), whole, complement=True)
    for one, other in zip(first, second, strict=True):
        assert (one[1] == 1).all()
        assert (other[1] == 1).all()
        assert set(one[0].unique().tolist()) == {0, 2}
        assert (one[0] + other[0] == 2).all()
    # The same channels of every level; each image its own.
    assert torch.equal(first[0][:, :, :1, :1], first[1])
    assert not torch.equal(first[0][0], first[0][2])


def test_half_of_the_images_keep_their_features() -> None:
    def chosen(count: int) -> Tensor:
        return chosen_images(count, 0.5, torch.Generator().manual_seed(1))

    assert [int(chosen(count).sum()) for count in (1, 2, 3, 8)] == [0, 1, 1, 4]


def test_the_batch_is_reversed() -> None:
    assert reversed_batch(torch.arange(3)).tolist() == [2, 1, 0]


def test_boxes_have_the_area_and_ratio() -> None:
    drawn = boxes((100, 120), generators(300), chance=0.5, area=(0.02, 0.4), ratio=(0.3, 1 / 0.3))
    some = drawn.flatten(1).any(1)
    assert 120 < int(some.sum()) < 180
    for box in drawn[some]:
        rows, columns = box.any(1).sum().item(), box.any(0).sum().item()
        assert box.sum() == rows * columns  # nothing is cut off at the border
        assert 0.02 * 12000 - rows - columns < rows * columns <= 0.4 * 12000
        assert 0.29 < rows / columns < 3.6
    assert not boxes(SIZE, generators(9), chance=0, area=(0.1, 0.4), ratio=(1, 1)).any()


def test_the_other_images_box_brings_its_label_and_weight() -> None:
    images = torch.stack([torch.full((3, *SIZE), value) for value in (0.1, 0.5, 0.9)])
    valid = torch.ones(3, *SIZE, dtype=torch.bool)
    valid[2, :3] = False
    config = replace(PLAIN, cut_mix=1.0)
    batch = batch_of(images, valid)
    for view in config.build(2).views(batch, context(batch)):
        assert view.labels is not None
        assert view.weights is not None
        sources = [2, 1, 0]
        for place, source in enumerate(sources):
            here = view.images[place, 0] == images[place, 0, 0, 0]
            if place != source:
                assert not here.all()
            assert (view.images[place, 0][~here] == images[source, 0, 0, 0]).all()
            counts = torch.where(here, valid[place], valid[source])
            assert torch.equal(view.labels[place] != 255, counts)
            sure = torch.zeros(SIZE)
            sure[:, :8] = 1
            assert torch.equal(view.weights[place], sure * counts)
    assert torch.equal(batch.target_images, images)


def test_the_loss_is_over_all_pixels_that_are_no_padding() -> None:
    """Half of the pixels are sure: log 2 / 2 for uniform predictions, and half of it a view."""
    images = torch.rand(2, 3, *SIZE)
    valid = torch.ones(2, *SIZE, dtype=torch.bool)
    valid[:, 6:] = False
    batch = batch_of(images, valid)
    objective = PLAIN.build(2)
    first, second = objective.views(batch, context(batch))
    assert torch.equal(first.images, images)
    output = SegmentationOutput(torch.zeros(2, 2, *SIZE), None, images)
    terms = objective.terms(first, output, context(batch))
    assert terms.keys() == {"first"}
    assert terms["first"].item() == pytest.approx(math.log(2) / 2 / 2)
    assert objective.terms(second, output, context(batch)).keys() == {"second"}


def test_views_differ_in_color_and_share_their_coins() -> None:
    batch = batch_of(torch.rand(2, 3, *SIZE))
    objective = replace(UniMatchV2Config(), whole_features=0.0).build(2)
    first, second = objective.views(batch, context(batch))
    assert not torch.equal(first.images, second.images)
    assert first.perturb is not None
    assert second.perturb is not None
    maps = (torch.ones(2, 64, 2, 3),)
    for _ in range(2):  # however often they are asked
        (one,), (other,) = first.perturb(maps), second.perturb(maps)
        assert (one + other == 2).all()
        assert (one == 0).any()


@pytest.mark.parametrize(
    ("changes", "says"),
    [({"box_area": (0.5, 0.2)}, "box_area is .*; allowed: 0 < lowest"),
     ({"cut_mix": 2.0}, "cut_mix"), ({"whole_features": -1.0}, "whole_features")],
)  # fmt: skip
def test_what_is_out_of_range_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(UniMatchV2Config(), **changes).check("objectives.unimatch_v2")
