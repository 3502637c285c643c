"""Class mix: source classes on target images, and the weights of what the teacher labeled."""

import pytest
import torch
from torch import Tensor

from uda.augmentation.color_jitter import ColorJitterConfig
from uda.augmentation.jitter import JitterConfig
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.functional.losses import cross_entropy
from uda.objectives.functional.mixing import half_of_classes, mix_domains

CLASSES = 4


class StubTeacher:
    """Says class 3 everywhere: surely in the left half of an image, unsurely in the right."""

    def __call__(self, images: Tensor) -> Tensor:
        samples, _, height, width = images.shape
        logits = torch.zeros(samples, CLASSES, height, width)
        logits[:, 3, :, : width // 2] = 20
        logits[:, 3, :, width // 2 :] = 0.1
        return logits


def device_batch() -> Batch:
    """Sources are classes 0, 1 and 2 in bands of rows; domains tell by brightness."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat_interleave(4).view(1, 12, 1).expand(2, 12, 16).contiguous()
    labels[1, :, :2] = 255
    return Batch(
        source_images=0.5 + 0.5 * torch.rand(2, 3, 12, 16, generator=generator),
        source_labels=labels,
        target_images=0.4 * torch.rand(2, 3, 12, 16, generator=generator),
        target_pseudo_labels=None,
        indices=(5, 6),
        source_names=("a", "b"),
        target_names=("c", "d"),
    )


def view_of(**settings: object) -> View:
    config = ClassMixConfig(**settings)  # type: ignore[arg-type]
    (view,) = config.build(CLASSES).views(device_batch(), context())
    return view


def context() -> StepContext:
    return StepContext(step=0, seed=0, indices=(5, 6), teacher=StubTeacher())


def test_source_pixels_where_pasted_and_target_elsewhere() -> None:
    batch, view = device_batch(), view_of(jitter=None)
    assert view.name == "class_mix"
    pasted = half_of_classes(batch.source_labels, context().generators("class_mix"))
    assert view.labels is not None
    assert 0 < pasted.sum() < pasted.numel()
    assert torch.equal(view.labels[pasted], batch.source_labels[pasted])
    assert (view.labels[~pasted] == 3).all()
    for channel in range(3):
        image, source = view.images[:, channel], batch.source_images[:, channel]
        assert torch.equal(image[pasted], source[pasted])
        assert torch.equal(image[~pasted], batch.target_images[:, channel][~pasted])
    for sample in (0, 1):  # two of three classes, rounded up
        assert len(batch.source_labels[sample][pasted[sample]].unique()) == 2
    assert not pasted[1, :, :2].any(), "ignored source pixels are never pasted"


def test_weights_are_one_on_source_and_the_share_of_sure_pixels_on_target() -> None:
    batch, view = device_batch(), view_of(jitter=None)
    pasted = half_of_classes(batch.source_labels, context().generators("class_mix"))
    assert view.weights is not None
    assert view.weights.shape == pasted.shape
    assert (view.weights[pasted] == 1).all()
    assert (view.weights[~pasted] == 0.5).all()  # half of every target image is sure


def test_the_pixel_rule_weighs_each_pixel_by_its_own_confidence() -> None:
    batch, view = device_batch(), view_of(jitter=None, confidence="pixel")
    pasted = half_of_classes(batch.source_labels, context().generators("class_mix"))
    assert view.weights is not None
    left = torch.arange(16).expand_as(pasted) < 8
    assert (view.weights[pasted] == 1).all()
    assert (view.weights[~pasted & left] == 1).all()
    assert (view.weights[~pasted & ~left] == 0).all()


def test_the_threshold_decides_what_is_sure() -> None:
    weights = view_of(jitter=None, threshold=0.2).weights
    assert weights is not None
    assert (weights == 1).all()


def test_jitter_changes_the_image_and_keeps_labels_and_weights() -> None:
    plain, jittered = view_of(jitter=None), view_of(jitter=JitterConfig())
    assert plain.labels is not None
    assert plain.weights is not None
    assert jittered.labels is not None
    assert jittered.weights is not None
    assert torch.equal(plain.labels, jittered.labels)
    assert torch.equal(plain.weights, jittered.weights)
    assert not torch.equal(plain.images, jittered.images)
    assert jittered.images.min() >= 0
    assert jittered.images.max() <= 1


def test_another_sample_number_pastes_other_classes() -> None:
    objective = ClassMixConfig(jitter=None).build(CLASSES)
    views: list[View] = []
    for first in range(0, 12, 2):
        numbers = StepContext(0, 0, (first, first + 1), StubTeacher())
        views += objective.views(device_batch(), numbers)
    assert any(not torch.equal(views[0].images, view.images) for view in views[1:])


def test_the_loss_is_the_weighted_cross_entropy_of_the_main_head() -> None:
    view = view_of()
    assert view.labels is not None
    logits = torch.randn(2, CLASSES, 12, 16, generator=torch.Generator().manual_seed(1))
    output = SegmentationOutput(logits, None, torch.zeros(2, 1, 1, 1))
    terms = ClassMixConfig().build(CLASSES).terms(view, output, context())
    assert list(terms) == ["main"]
    expected = cross_entropy(logits, view.labels, weights=view.weights)
    assert terms["main"].item() == pytest.approx(expected.item())


def test_mix_domains_by_hand() -> None:
    where = torch.tensor([[[True, False]]])
    batch = Batch(
        source_images=torch.full((1, 3, 1, 2), 0.75),
        source_labels=torch.tensor([[[1, 2]]]),
        target_images=torch.full((1, 3, 1, 2), 0.25),
        target_pseudo_labels=None,
        indices=(0,),
        source_names=("a",),
        target_names=("b",),
    )
    pseudo_labels = torch.tensor([[[7, 8]]])
    view = mix_domains(
        batch, pseudo_labels, name="v", from_source=where, target_weights=torch.full((1, 1, 1), 0.3)
    )
    assert view.images[0, 0].tolist() == [[0.75, 0.25]]
    assert view.labels is not None
    assert view.labels.tolist() == [[[1, 8]]]
    assert view.weights is not None
    assert view.weights.tolist() == [[[1.0, pytest.approx(0.3)]]]


def test_ignored_pixels_as_one_more_class() -> None:
    """Of classes 0, 1, 2 and 255, DACS pastes two; 255 is among them in some steps."""
    labels = device_batch().source_labels
    seen = set()
    for seed in range(12):
        generators = [torch.Generator().manual_seed(100 * seed + sample) for sample in (0, 1)]
        pasted = half_of_classes(labels, generators, "image_and_void")
        assert len(labels[0][pasted[0]].unique()) == 2, "of three"
        chosen = labels[1][pasted[1]].unique().tolist()
        assert len(chosen) == 2, "of four"
        seen |= set(chosen)
    assert seen == {0, 1, 2, 255}


def test_half_of_the_batchs_classes() -> None:
    """DAFormer's slip: a sample may lend all of its classes, or none."""
    labels = torch.tensor([0, 1, 2, 3]).repeat_interleave(2).view(2, 2, 2)  # two classes each
    counts = set()
    for seed in range(24):
        generators = [torch.Generator().manual_seed(100 * seed + sample) for sample in (0, 1)]
        pasted = half_of_classes(labels, generators, "batch_and_void")
        counts |= {len(labels[sample][pasted[sample]].unique()) for sample in (0, 1)}
    assert counts == {0, 1, 2}
    alone = half_of_classes(labels[:1], [torch.Generator().manual_seed(0)], "batch_and_void")
    assert len(labels[0][alone[0]].unique()) == 1, "of the two in the batch"


def test_ignored_pixels_in_the_mean_by_hand() -> None:
    """Uniform over 19 classes, one labeled pixel of four: ln 19 over one or over four pixels."""
    logits = torch.zeros(1, 19, 2, 2, requires_grad=True)
    labels = torch.tensor([[[0, 255], [255, 255]]])
    view = View("class_mix", torch.rand(1, 3, 2, 2), labels, torch.ones(1, 1, 1))
    output = SegmentationOutput(logits, None, logits)
    for over, expected in (("labeled", 2.9444), ("all", 0.7361)):
        objective = ClassMixConfig(over=over).build(19)  # type: ignore[arg-type]
        loss = objective.terms(view, output, context())["main"]
        assert loss.item() == pytest.approx(expected, abs=1e-4)


def test_one_share_and_one_coin_for_the_batch() -> None:
    batch = device_batch()
    view = view_of(jitter=ColorJitterConfig(), confidence="batch_share", threshold=0.968)
    assert view.weights is not None
    pasted = half_of_classes(batch.source_labels, context().generators("class_mix"))
    assert (view.weights[~pasted] == 0.5).all()
    again = view_of(jitter=ColorJitterConfig(), confidence="batch_share", threshold=0.968)
    assert torch.equal(view.images, again.images)
