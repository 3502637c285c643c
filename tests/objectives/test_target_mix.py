"""Class mix between target images: what is pasted, with which labels and weights."""

import pytest
import torch
from torch import Tensor

from uda.augmentation.jitter import JitterConfig
from uda.data.batch import Batch
from uda.objectives.base import StepContext
from uda.objectives.functional.mixing import half_of_classes
from uda.objectives.target_mix import TargetMixConfig
from uda.utilities.errors import InputError

CLASSES = 4


class BySide:
    """Says one class left and another one right, in each image its own, and is sure on the left."""

    def __call__(self, images: Tensor) -> Tensor:
        samples, _, height, width = images.shape
        logits = torch.zeros(samples, CLASSES, height, width)
        for n in range(samples):
            logits[n, n, :, : width // 2] = 20
            logits[n, n + 1, :, width // 2 :] = 0.1
        return logits


def batch_of(count: int) -> Batch:
    images = torch.arange(count).view(-1, 1, 1, 1).expand(-1, 3, 4, 8) / 10
    nothing = torch.zeros(0, 3, 4, 8)
    return Batch(
        source_images=nothing,
        source_labels=torch.zeros(0, 4, 8, dtype=torch.int64),
        target_images=images.contiguous(),
        target_pseudo_labels=None,
        indices=tuple(range(count)),
        source_names=(),
        target_names=tuple("abc"[:count]),
    )


def context(count: int) -> StepContext:
    return StepContext(step=0, seed=0, indices=tuple(range(count)), teacher=BySide())


def test_classes_of_the_image_before_lie_on_each_image() -> None:
    config = TargetMixConfig(jitter=None, confidence="pixel", threshold=0.9)
    (view,) = config.build(CLASSES).views(batch_of(3), context(3))
    assert view.labels is not None
    assert view.weights is not None
    left = torch.arange(8) < 4
    own = torch.stack([torch.where(left, n, n + 1).expand(4, 8) for n in range(3)])
    others = own.roll(1, dims=0)
    pasted = half_of_classes(others, context(3).generators("target_mix"))
    assert pasted.flatten(1).sum(dim=1).tolist() == [16, 16, 16], "one of two classes each"
    assert torch.equal(view.labels, torch.where(pasted, others, own))
    expected = torch.arange(3).view(3, 1, 1)
    expected = torch.where(pasted, expected.roll(1, dims=0), expected) / 10
    assert torch.equal(view.images, expected.unsqueeze(1).expand(-1, 3, -1, -1))
    # Sure on the left of both the image and what is pasted, so that places keep their weights.
    assert torch.equal(view.weights, left.float().expand(3, 4, 8))


def test_images_are_recolored_labels_are_not() -> None:
    plain, jittered = (
        TargetMixConfig(jitter=jitter).build(CLASSES).views(batch_of(2), context(2))[0]
        for jitter in (None, JitterConfig())
    )
    assert not torch.equal(plain.images, jittered.images)
    assert plain.labels is not None
    assert jittered.labels is not None
    assert torch.equal(plain.labels, jittered.labels)


def test_one_image_has_nothing_to_be_mixed_with() -> None:
    with pytest.raises(InputError, match=r"--set train\.batch_size=2"):
        TargetMixConfig().build(CLASSES).views(batch_of(1), context(1))
