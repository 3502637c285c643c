"""Pseudo-labels of a folder: learned where a pixel has one."""

import pytest
import torch
import torch.nn.functional as F

from uda.augmentation.jitter import JitterConfig
from uda.data.batch import Batch, View
from uda.labels.spaces import IGNORE_INDEX
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.pseudo_label import PseudoLabelConfig

CONTEXT = StepContext(step=0, seed=0, indices=(0, 1))


def device_batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 2, 3, 8, 12, generator=generator)
    labels = torch.randint(0, 4, (2, 8, 12), generator=generator)
    labels[:, :3] = IGNORE_INDEX
    return Batch(
        source_images=images[0],
        source_labels=torch.zeros(2, 8, 12, dtype=torch.int64),
        target_images=images[1],
        target_pseudo_labels=labels,
        indices=CONTEXT.indices,
        source_names=("a", "b"),
        target_names=("c", "d"),
    )


def output() -> SegmentationOutput:
    main, auxiliary = torch.randn(
        2, 2, 4, 8, 12, generator=torch.Generator().manual_seed(1)
    ).unbind()
    return SegmentationOutput(main, auxiliary, torch.zeros(2, 1, 1, 1))


def test_loss_of_the_labeled_pixels_of_the_target_view() -> None:
    objective = PseudoLabelConfig(auxiliary_weight=0.5).build(4)
    batch, said = device_batch(), output()
    assert objective.reads == {"target"}
    assert objective.views(batch, CONTEXT) == ()
    labels = batch.target_pseudo_labels
    assert labels is not None
    terms = objective.terms(View("target", batch.target_images, labels), said, CONTEXT)
    known = labels[:, 3:]
    assert said.auxiliary_logits is not None
    main = F.cross_entropy(said.logits[:, :, 3:], known)
    auxiliary = F.cross_entropy(said.auxiliary_logits[:, :, 3:], known)
    assert terms["main"].item() == pytest.approx(main.item())
    assert terms["auxiliary"].item() == pytest.approx(0.5 * auxiliary.item())


def test_images_without_a_single_label_cost_nothing() -> None:
    nothing = torch.full((2, 8, 12), IGNORE_INDEX)
    view = View("target", device_batch().target_images, nothing)
    terms = PseudoLabelConfig().build(4).terms(view, output(), CONTEXT)
    assert [value.item() for value in terms.values()] == [0, 0]


def test_with_jitter_the_student_sees_a_view_of_its_own() -> None:
    objective = PseudoLabelConfig(jitter=JitterConfig()).build(4)
    batch = device_batch()
    assert objective.reads == {"pseudo_label"}
    (view,) = objective.views(batch, CONTEXT)
    assert view.name == "pseudo_label"
    assert view.labels is batch.target_pseudo_labels
    assert not torch.equal(view.images, batch.target_images)
    (again,) = objective.views(batch, CONTEXT)
    assert torch.equal(again.images, view.images)


def test_needs() -> None:
    assert PseudoLabelConfig().needs() == {"target", "pseudo_labels", "auxiliary_head"}
    assert PseudoLabelConfig(auxiliary_weight=0.0).needs() == {"target", "pseudo_labels"}
    terms = PseudoLabelConfig(auxiliary_weight=0.0).build(4)
    batch = device_batch()
    view = View("target", batch.target_images, batch.target_pseudo_labels)
    assert list(terms.terms(view, output().replace(auxiliary_logits=None), CONTEXT)) == ["main"]
