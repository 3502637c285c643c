"""CutMix: the box comes from the target, everything around it from the source."""

import pytest
import torch
from torch import Tensor

from uda.augmentation.jitter import JitterConfig
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.functional.losses import cross_entropy
from uda.objectives.functional.mixing import random_boxes

SIZE = (12, 16)


def confident(images: Tensor) -> Tensor:
    """Logits that say class 3 everywhere, surely in the upper half only."""
    logits = torch.zeros(len(images), 4, *SIZE)
    logits[:, 3, : SIZE[0] // 2] = 20
    logits[:, 3, SIZE[0] // 2 :] = 0.1
    return logits


CONTEXT = StepContext(step=0, seed=0, indices=(2, 3), teacher=confident)


def device_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        source_images=0.5 + 0.5 * torch.rand(2, 3, *SIZE, generator=generator),
        source_labels=torch.randint(0, 3, (2, *SIZE), generator=generator),
        target_images=0.4 * torch.rand(2, 3, *SIZE, generator=generator),
        target_pseudo_labels=None,
        indices=(2, 3),
        source_names=("a", "b"),
        target_names=("c", "d"),
    )


def view_of(**settings: object) -> View:
    config = CutMixConfig(**settings)  # type: ignore[arg-type]
    (view,) = config.build(4).views(device_batch(), CONTEXT)
    return view


def boxes() -> Tensor:
    found = random_boxes(SIZE, CONTEXT.generators("cut_mix"))
    assert found.any()
    assert not found.all()
    return found


def test_the_box_is_target_and_the_rest_is_source() -> None:
    batch, view, box = device_batch(), view_of(), boxes()
    assert view.name == "cut_mix"
    assert view.labels is not None
    assert (view.labels[box] == 3).all()
    assert torch.equal(view.labels[~box], batch.source_labels[~box])
    for channel in range(3):
        image = view.images[:, channel]
        assert torch.equal(image[box], batch.target_images[:, channel][box])
        assert torch.equal(image[~box], batch.source_images[:, channel][~box])


def test_weights_by_both_rules() -> None:
    box = boxes()
    share, pixel = view_of().weights, view_of(confidence="pixel").weights
    assert share is not None
    assert pixel is not None
    upper = (torch.arange(SIZE[0]).unsqueeze(1) < SIZE[0] // 2).expand_as(box)
    assert (share[~box] == 1).all()
    assert (share[box] == 0.5).all()
    assert (pixel[~box] == 1).all()
    assert (pixel[box & upper] == 1).all()
    assert (pixel[box & ~upper] == 0).all()


def test_jitter_keeps_labels() -> None:
    plain, jittered = view_of(), view_of(jitter=JitterConfig())
    assert not torch.equal(plain.images, jittered.images)
    assert plain.labels is not None
    assert jittered.labels is not None
    assert torch.equal(plain.labels, jittered.labels)


def test_the_loss_is_the_weighted_cross_entropy_of_the_main_head() -> None:
    view = view_of()
    assert view.labels is not None
    logits = torch.randn(2, 4, *SIZE, generator=torch.Generator().manual_seed(1))
    output = SegmentationOutput(logits, None, torch.zeros(2, 1, 1, 1))
    terms = CutMixConfig().build(4).terms(view, output, CONTEXT)
    expected = cross_entropy(logits, view.labels, weights=view.weights)
    assert terms["main"].item() == pytest.approx(expected.item())
    assert list(terms) == ["main"]
