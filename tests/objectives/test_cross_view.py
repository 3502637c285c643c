"""Cross view: both crops follow one fixed reference, as the log's formula says."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tiny_runs import tiny_model
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.cross_view import CrossView, CrossViewConfig
from uda.optim.teacher import MeanTeacher, TeacherConfig

CLASSES = 5
SIZE = (4, 6)


def device_batch(size: tuple[int, int] = SIZE) -> Batch:
    images = torch.rand(2, 2, 3, *size, generator=torch.Generator().manual_seed(0))
    return Batch(
        source_images=torch.zeros(2, 3, *size),
        source_labels=torch.zeros(2, *size, dtype=torch.int64),
        target_images=images[0],
        target_pseudo_labels=None,
        indices=(0, 1),
        source_names=("a", "b"),
        target_names=("c", "d"),
        target_second_images=images[1],
    )


def teacher() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, CLASSES, 1)


def output(logits: Tensor) -> SegmentationOutput:
    return SegmentationOutput(logits, None, torch.zeros(2, 1, 1, 1))


def step(
    objective: CrossView, batch: Batch, network: nn.Module, first: Tensor, second: Tensor
) -> dict[str, Tensor]:
    """The terms of one step in the engine's order, the student saying `first` and `second`."""
    context = StepContext(step=0, seed=0, indices=batch.indices, teacher=network)
    (view,) = objective.views(batch, context)
    terms = objective.terms(View("target", batch.target_images), output(first), context)
    terms |= objective.terms(view, output(second), context)
    objective.after_backward(context)
    objective.after_step(context)
    return terms


def test_the_logs_formula() -> None:
    """A student that says what the teacher says: both KL divergences, by torch.distributions."""
    batch, network = device_batch(), teacher()
    assert batch.target_second_images is not None
    with torch.no_grad():
        first, second = network(batch.target_images), network(batch.target_second_images)
    terms = step(CrossViewConfig().build(CLASSES), batch, network, first, second)
    assert list(terms) == ["kl_first", "kl_second"]

    def distribution(logits: Tensor) -> torch.distributions.Categorical:
        return torch.distributions.Categorical(logits=logits.double().movedim(1, -1))

    q = distribution(0.5 * first + second)
    for term, logits in zip(terms.values(), (first, second), strict=True):
        divergence = torch.distributions.kl_divergence(q, distribution(logits))
        assert divergence.shape == (2, *SIZE)
        assert term.item() == pytest.approx(divergence.mean().item(), rel=1e-4)


def test_by_hand() -> None:
    """One pixel: the teacher says (0, log 4), then (0, log 2), so q = softmax(0, log 4)."""

    def says(images: Tensor) -> Tensor:
        return torch.stack([torch.zeros(1, 1, 1), images[:, 0].log()], dim=1)

    images = torch.ones(1, 3, 1, 1)
    batch = replace(
        device_batch(), target_images=4 * images, target_second_images=2 * images, indices=(0,)
    )
    context = StepContext(step=0, seed=0, indices=(0,), teacher=says)
    objective = CrossViewConfig().build(2)
    (view,) = objective.views(batch, context)
    assert view.name == "cross_view"
    assert view.images is batch.target_second_images
    assert view.labels is None
    even = output(torch.zeros(1, 2, 1, 1))
    terms = objective.terms(View("target", batch.target_images), even, context)
    terms |= objective.terms(view, even, context)
    # KL((1, 4) / 5 || (1, 1) / 2) = 1/5 log 2/5 + 4/5 log 8/5
    expected = 0.2 * math.log(2 / 5) + 0.8 * math.log(8 / 5)
    assert [term.item() for term in terms.values()] == pytest.approx([expected] * 2, rel=1e-5)


def test_the_student_learns_and_the_reference_does_not() -> None:
    batch, network = device_batch(), teacher()
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 2, CLASSES, *SIZE, generator=generator).unbind()
    first.requires_grad_()
    second.requires_grad_()
    terms = step(CrossViewConfig().build(CLASSES), batch, network, first, second)
    torch.stack(list(terms.values())).sum().backward()
    assert all(weight.grad is None for weight in network.parameters())
    assert batch.target_second_images is not None
    with torch.no_grad():
        q = 0.5 * network(batch.target_images) + network(batch.target_second_images)
        for logits in (first, second):
            expected = (logits.softmax(1) - q.softmax(1)) / (2 * SIZE[0] * SIZE[1])
            torch.testing.assert_close(logits.grad, expected)


def test_without_momentum_the_teacher_is_the_student_of_the_step() -> None:
    """So the reference is the log's, made of what the student itself says."""
    torch.manual_seed(0)
    student = tiny_model().build(CLASSES)
    for module in student.modules():
        if isinstance(module, nn.Dropout | nn.Dropout2d):
            module.p = 0.0
    mean_teacher = MeanTeacher(student, TeacherConfig(momentum=0.0))
    with torch.no_grad():
        for weight in student.parameters():
            weight.add_(0.01 * torch.randn_like(weight))
    mean_teacher.update(student, updates=7)
    images = device_batch((32, 64)).target_images
    torch.testing.assert_close(mean_teacher(images), student.train()(images).logits)


def test_nothing_of_a_step_is_kept_or_saved() -> None:
    objective = CrossViewConfig().build(CLASSES)
    logits = torch.zeros(2, CLASSES, *SIZE)
    step(objective, device_batch(), teacher(), logits, logits)
    assert not any(isinstance(value, Tensor) for value in vars(objective).values())
    assert objective.state_dict() == {}


def test_settings_of_the_log() -> None:
    config = CrossViewConfig()
    assert config.weight == 0.1
    assert config.needs() == {"target", "teacher", "second_target_view"}
    assert config.adds() == {"cross_view"}
    assert config.build(CLASSES).reads == {"target", "cross_view"}
