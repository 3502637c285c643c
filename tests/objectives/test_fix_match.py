"""FixMatch: labels and strong view share their geometry, and only sure pixels are learned."""

import itertools
import math
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.augmentation.jitter import JitterConfig, jitter
from uda.augmentation.policies import PolicyName, apply_policy
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext, Teacher
from uda.objectives.fix_match import FixMatchConfig
from uda.utilities.config_tree import check_types
from uda.utilities.errors import InputError

POLICIES: tuple[PolicyName, ...] = get_args(PolicyName)
# CLAHE stretches the contrast of each tile, so that tiles have edges of their own.
GLOBAL_POLICIES = [name for name in POLICIES if name != "clahe_brightness_contrast"]
SIZE = (36, 48)
INDICES = tuple(range(40, 80))  # enough samples that every operation is drawn
WITHOUT_NOISE = JitterConfig(blur_probability=1, noise_probability=0)


def bright_boxes() -> Tensor:
    """Gray images, each with a brighter box of its own."""
    images = torch.full((len(INDICES), 3, *SIZE), 60 / 255)
    for sample, image in enumerate(images):
        top, left = 4 + sample % 7, 5 + sample % 11
        image[:, top : top + 18, left : left + 20] = 140 / 255
    return images.contiguous(memory_format=torch.channels_last)


def device_batch(images: Tensor) -> Batch:
    samples, _, *size = images.shape
    return Batch(
        source_images=torch.zeros_like(images),
        source_labels=torch.zeros(samples, *size, dtype=torch.int64),
        target_images=images,
        target_pseudo_labels=None,
        indices=INDICES[:samples],
        source_names=("source",) * samples,
        target_names=("target",) * samples,
    )


def context(teacher: Teacher, samples: int = len(INDICES)) -> StepContext:
    return StepContext(step=0, seed=0, indices=INDICES[:samples], teacher=teacher)


def boxes_are_class_1(images: Tensor) -> Tensor:
    inside = (images.mean(dim=1, keepdim=True) > 0.4).float()
    return 20 * torch.cat([1 - inside, inside], dim=1)


def view_of(config: FixMatchConfig, images: Tensor, teacher: Teacher = boxes_are_class_1) -> View:
    (view,) = config.build(2).views(device_batch(images), context(teacher, len(images)))
    return view


def edges(images: Tensor) -> Tensor:
    """Where (N, H, W) a pixel of (N, C, H, W) differs from its right or lower neighbor."""
    right = F.pad(images.diff(dim=3), (0, 1))
    down = F.pad(images.diff(dim=2), (0, 0, 0, 1))
    return (right.abs() + down.abs()).amax(dim=1) > 1e-3


def within(edges: Tensor, distance: int) -> Tensor:
    size = 2 * distance + 1
    return F.max_pool2d(edges.float(), size, stride=1, padding=distance) > 0


@pytest.mark.parametrize(
    ("policy", "jitter_config"),
    [(None, WITHOUT_NOISE), *itertools.product(GLOBAL_POLICIES, [None, WITHOUT_NOISE])],
)
def test_the_edges_of_the_strong_view_are_the_edges_of_its_labels(
    policy: PolicyName | None, jitter_config: JitterConfig | None
) -> None:
    """The log's mistake: labels of one crop, images of another."""
    view = view_of(FixMatchConfig(policy=policy, jitter=jitter_config), bright_boxes())
    assert view.labels is not None
    of_labels, of_images = edges(view.labels.unsqueeze(1).float()), edges(view.images)
    # Sharpening reaches two pixels when drawn twice, the widest blur four.
    reach = 2 if jitter_config is None else 6
    assert not (of_images & ~within(of_labels, reach)).any()
    shown = (of_images & within(of_labels, 1)).flatten(1).any(dim=1)
    assert shown.float().mean() > 0.6, "some operations hide the box, none moves it"


def test_an_edge_elsewhere_would_be_noticed() -> None:
    labels = edges(boxes_are_class_1(bright_boxes())[:, 1:])
    moved = edges(bright_boxes().roll(3, dims=3))
    assert (moved & ~within(labels, 2)).any()


def test_the_teacher_sees_the_images_as_they_were_loaded() -> None:
    seen: list[Tensor] = []

    def teacher(images: Tensor) -> Tensor:
        seen.append(images.clone())
        left = (torch.arange(SIZE[1]) < 7).float().expand(len(images), 1, *SIZE)
        return 20 * torch.cat([left, 1 - left], dim=1)

    images = bright_boxes()
    view = view_of(FixMatchConfig(policy="autoaugment_log"), images, teacher)
    assert len(seen) == 1
    assert torch.equal(seen[0], images)
    assert torch.equal(images, bright_boxes()), "and nobody changes them"
    assert view.labels is not None
    assert not view.labels[:, :, :7].any()
    assert (view.labels[:, :, 7:] == 1).all()


def test_policy_then_jitter_each_sample_from_its_own_generator() -> None:
    images = bright_boxes()
    config = FixMatchConfig(policy="randaugment")
    assert config.jitter is not None
    view = view_of(config, images)
    generators = context(boxes_are_class_1).generators("fix_match")
    for sample, generator in enumerate(generators):
        levels = (images[sample] * 255).round().to(torch.uint8)
        distorted = apply_policy(levels, "randaugment", generator).float() / 255
        expected = jitter(distorted.unsqueeze(0), config.jitter, [generator])
        torch.testing.assert_close(view.images[sample : sample + 1], expected)


@pytest.mark.parametrize("policy", POLICIES)
def test_strong_views_are_images_in_the_format_of_the_weak_ones(policy: PolicyName) -> None:
    images = bright_boxes()
    for config in (FixMatchConfig(policy=policy), FixMatchConfig(policy=policy, jitter=None)):
        before = torch.get_rng_state()
        view = view_of(config, images)
        assert torch.equal(torch.get_rng_state(), before)
        assert view.name == "fix_match"
        assert view.images.shape == images.shape
        assert view.images.dtype == images.dtype
        assert view.images.is_contiguous(memory_format=torch.channels_last)
        assert view.images.min() >= 0
        assert view.images.max() <= 1
        assert not torch.equal(view.images, images)


def test_a_policy_works_on_the_bytes_that_the_loader_read() -> None:
    """Without an operation that shows, the images come back bit for bit."""
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(40, 3, 16, 16)
    images = levels.float().div_(255)
    view = view_of(FixMatchConfig(policy="autoaugment_log", jitter=None), images)
    untouched = (view.images == images).flatten(1).all(dim=1)
    assert 0 < untouched.sum() < 40
    assert torch.equal((view.images * 255).round() / 255, view.images)


def test_only_sure_pixels_count_and_the_mean_is_over_all() -> None:
    confidence = torch.tensor([0.99, 0.94, 0.96, 0.5])  # of class 1

    def teacher(images: Tensor) -> Tensor:
        return torch.stack([1 - confidence, confidence]).log().view(1, 2, 1, 4)

    objective = FixMatchConfig(auxiliary_weight=0.5).build(2)
    images = torch.full((1, 3, 1, 4), 0.5)
    (view,) = objective.views(device_batch(images), context(teacher, 1))
    assert view.weights is not None
    assert view.weights.tolist() == [[[1, 0, 1, 0]]]
    said = torch.tensor([0.5, 0.1, 0.25, 0.1])
    main = torch.stack([1 - said, said]).log().view(1, 2, 1, 4)
    output = SegmentationOutput(main, torch.zeros(1, 2, 1, 4), torch.zeros(1, 1, 1, 1))
    terms = objective.terms(view, output, context(teacher, 1))
    assert list(terms) == ["main", "auxiliary"]
    # log 2 and log 4 of the first and third pixel, over four.
    assert terms["main"].item() == pytest.approx(3 * math.log(2) / 4)
    assert terms["auxiliary"].item() == pytest.approx(0.5 * 2 * math.log(2) / 4)


def test_the_student_learns_and_the_teacher_does_not() -> None:
    torch.manual_seed(0)
    teacher, student = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)
    config = FixMatchConfig(threshold=0.0)
    assert config.auxiliary_weight == 0
    view = view_of(config, bright_boxes(), teacher)
    output = SegmentationOutput(student(view.images), None, torch.zeros(1, 1, 1, 1))
    terms = config.build(2).terms(view, output, context(teacher))
    assert list(terms) == ["main"]
    terms["main"].backward()
    assert student.weight.grad is not None
    assert student.weight.grad.any()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_needs() -> None:
    assert FixMatchConfig().needs() == {"target", "teacher"}
    assert FixMatchConfig(auxiliary_weight=0.5).needs() == {"target", "teacher", "auxiliary_head"}
    assert FixMatchConfig().adds() == {"fix_match"}
    assert FixMatchConfig().build(2).reads == {"fix_match"}


def test_settings_that_make_no_sense_are_refused() -> None:
    config = FixMatchConfig(policy="autoaugment")
    check_types(config, origin="fix_match")
    config.check("fix_match")
    replace(config, jitter=None).check("fix_match")
    with pytest.raises(InputError, match="the strong view would be the weak one"):
        replace(config, policy=None, jitter=None).check("fix_match")
    with pytest.raises(InputError, match=r"fix_match\.threshold is 95"):
        replace(config, threshold=95).check("fix_match")
    with pytest.raises(InputError, match=r"fix_match\.auxiliary_weight is -1"):
        replace(config, auxiliary_weight=-1).check("fix_match")
    with pytest.raises(InputError, match=r"fix_match\.jitter\.brightness"):
        replace(config, jitter=JitterConfig(brightness=2)).check("fix_match")
