"""MIC: which patches are hidden and how, whose labels are learned, and with what weight."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tiny_runs import CPU, random_batch, tiny_model, tiny_preset, tiny_run
from uda.augmentation.color_jitter import ColorJitterConfig
from uda.augmentation.jitter import jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.functional.mixing import random_blocks
from uda.objectives.masked_image import MaskedImage, MaskedImageConfig
from uda.training.step import train_step
from uda.utilities.errors import InputError

CLASSES = 4
HEIGHT, WIDTH, BLOCK = 32, 48, 8
MEAN = (0.485, 0.456, 0.406)


class StubTeacher:
    """Says class 3 everywhere: surely in the left half of an image, unsurely in the right."""

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        logits = torch.zeros(len(images), CLASSES, *images.shape[2:])
        logits[:, 3] = 0.1
        logits[:, 3, :, : images.shape[3] // 2] = 20
        return logits


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    source = torch.zeros(2, HEIGHT, WIDTH, dtype=torch.int64)
    source[:, :4] = 255
    return Batch(
        source_images=torch.rand(2, 3, HEIGHT, WIDTH, generator=generator),
        source_labels=source,
        target_images=torch.rand(2, 3, HEIGHT, WIDTH, generator=generator),
        target_pseudo_labels=None,
        indices=(6, 7),
        source_names=("a", "b"),
        target_names=("c", "d"),
    )


def objective_of(**settings: object) -> MaskedImage:
    config = MaskedImageConfig(block=BLOCK, **settings)  # type: ignore[arg-type]
    objective = config.build(CLASSES)
    objective.attach(tiny_model().build(CLASSES))
    return objective


def view_of(**settings: object) -> View:
    context = StepContext(0, 0, (6, 7), StubTeacher())
    (view,) = objective_of(**settings).views(batch(), context)
    return view


def test_hidden_blocks_are_0_for_the_network_and_the_rest_stays() -> None:
    view = view_of(jitter=None)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    hidden = (view.images == mean).all(dim=1)
    shown = (view.images == batch().target_images).all(dim=1)
    assert torch.equal(hidden, ~shown)
    assert 0 < hidden.sum() < hidden.numel()
    blocks = hidden.unfold(1, BLOCK, BLOCK).unfold(2, BLOCK, BLOCK).flatten(3)
    assert torch.equal(blocks.all(dim=-1), blocks.any(dim=-1)), "hidden as a whole"
    assert not torch.equal(hidden[0], hidden[1]), "each image has a mask of its own"
    normalized = tiny_model().build(CLASSES).normalize(view.images)
    assert (normalized.permute(0, 2, 3, 1)[hidden] == 0).all()


def test_blocks_by_hand() -> None:
    """At 1024, 16x16 blocks of which 76.8 stay; 1120 pixels are 18 blocks of 62 or 63."""
    generators = [torch.Generator().manual_seed(seed) for seed in range(200)]
    hidden = random_blocks((16, 16), generators, side=1, share=0.7)
    kept = (~hidden).flatten(1).sum(dim=1).double()
    assert kept.mean().item() == pytest.approx(76.8, abs=3 * 7.33 / 200**0.5)
    assert kept.std().item() == pytest.approx(7.33, rel=0.15)
    (wide,) = random_blocks((1, 1120), [torch.Generator().manual_seed(3)], side=64, share=0.5)
    changes = (wide[0, 1:] != wide[0, :-1]).nonzero().flatten() + 1
    widths = (63, 62, 62, 62, 63, 62, 62, 62, 62) * 2
    starts = torch.tensor(widths).cumsum(0)
    assert set(changes.tolist()) <= set(starts.tolist())
    (large,) = random_blocks((64, 64), [torch.Generator().manual_seed(3)], side=200, share=0.5)
    assert large.all() or not large.any(), "there is one block at least"
    for share in (0.0, 1.0):
        found = random_blocks((8, 8), generators, side=1, share=share)
        assert bool(found.any()) == bool(share)
        assert bool(found.all()) == bool(share)


def test_labels_and_the_share_are_those_of_the_whole_images() -> None:
    teacher, whole = StubTeacher(), batch()
    context = StepContext(0, 0, (6, 7), teacher)
    (view,) = objective_of().views(whole, context)
    (mixed,) = ClassMixConfig(threshold=0.968, confidence="batch_share").build(CLASSES).views(
        whole, context
    )  # fmt: skip
    assert len(teacher.seen) == 1, "one pass for both"
    assert teacher.seen[0] is whole.target_images
    assert view.labels is not None
    assert view.weights is not None
    assert (view.labels == 3).all()
    assert (view.weights == 0.5).all(), "of every pixel, pasted ones or not"
    assert mixed.weights is not None
    assert (mixed.weights == 1).any()


def test_all_pixels_count() -> None:
    logits = torch.zeros(2, CLASSES, HEIGHT, WIDTH, requires_grad=True)
    objective, view = objective_of(), view_of()
    loss = objective.terms(view, SegmentationOutput(logits, None, logits), None)["main"]  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(0.5 * torch.tensor(4.0).log().item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient != 0).all()


def test_ignored_rows_weigh_nothing_here_too() -> None:
    view = view_of(ignored_rows=(3, 5))
    assert view.weights is not None
    assert (view.weights[:, :3] == 0).all()
    assert (view.weights[:, -5:] == 0).all()
    assert (view.weights[:, 3:-5] == 0.5).all()


def test_source_and_target_in_turn() -> None:
    view, whole = view_of(images="source_and_target", jitter=None, hidden=0.0), batch()
    assert torch.equal(view.images[0], whole.source_images[0])
    assert torch.equal(view.images[1], whole.target_images[1])
    assert view.labels is not None
    assert view.weights is not None
    assert torch.equal(view.labels[0], whole.source_labels[0])
    assert (view.labels[1] == 3).all()
    assert (view.weights[0] == 1).all()
    assert (view.weights[1] == 0.5).all()


def test_jitter_comes_before_the_mask_and_has_draws_of_its_own() -> None:
    config = ColorJitterConfig(probability=1.0, per_batch="coins_order_sigma")
    plain, jittered = view_of(jitter=None), view_of(jitter=config)
    mean = torch.tensor(MEAN).view(1, 3, 1, 1)
    hidden = (plain.images == mean).all(dim=1)
    assert torch.equal(hidden, (jittered.images == mean).all(dim=1)), "no patch is jittered"
    context = StepContext(0, 0, (6, 7))
    expected = jitter(
        batch().target_images,
        config,
        context.generators("masked_image_jitter"),
        context.batch_generator("masked_image_jitter_of_batch"),
    )
    shown = ~hidden.unsqueeze(1).expand_as(expected)
    assert torch.equal(jittered.images[shown], expected[shown])


def test_the_color_is_the_networks(toy_root: Path) -> None:
    experiment = tiny_preset("toy_class_mix", toy_root)
    experiment.objectives["class_mix"].start_step = 0
    experiment.objectives["masked_image"] = MaskedImageConfig(block=8)
    run = tiny_run(experiment)
    objective = run.objectives["masked_image"]
    assert torch.equal(objective.get_buffer("color"), run.student.mean)
    result = train_step(run, random_batch())
    assert {"loss/masked_image/main", "loss/class_mix/main"} <= result.losses.keys()
    assert objective.get_buffer("color").device == CPU


def test_settings_are_checked() -> None:
    with pytest.raises(InputError, match=r"x\.hidden is 1.5; allowed: 0 to 1"):
        MaskedImageConfig(hidden=1.5).check("x")
    with pytest.raises(InputError, match=r"x\.block is 0; allowed: 1 pixel or more"):
        MaskedImageConfig(block=0).check("x")
    with pytest.raises(InputError, match=r"x\.jitter\.hue is 1.0"):
        MaskedImageConfig(jitter=ColorJitterConfig(hue=1.0)).check("x")
    assert "source" not in MaskedImageConfig().needs()
    assert "source" in MaskedImageConfig(images="source_and_target").needs()
