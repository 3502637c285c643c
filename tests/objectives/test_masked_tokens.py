"""Masked tokens: what is hidden, that the teacher sees everything, and which networks can."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tiny_runs import random_batch, tiny_run
from trials import small_vit
from uda.augmentation.jitter import JitterConfig
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig, validate
from uda.models.encoders.vit import VisionTransformer
from uda.objectives.base import StepContext
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.masked_tokens import MaskedTokensConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig
from uda.training.step import train_step
from uda.utilities.errors import InputError


def experiment(**changes: object) -> Experiment:
    domain = DomainConfig(datasets=("gta5",), size=(88, 176))
    return Experiment(
        data=DataConfig(source=domain, target=replace(domain, datasets=("cityscapes",)),
                        crop=(64, 128)),
        model=small_vit(),
        objectives={
            "supervised": SupervisedConfig(auxiliary_weight=0.0),
            "masked_tokens": replace(MaskedTokensConfig(threshold=0.01), **changes),  # type: ignore[arg-type]
        },
        teacher=TeacherConfig(),
        train=TrainConfig(steps=4, batch_size=2, precision="float32", head_lr_factor=1.0,
                          optimizer=OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.1)),
        evaluation=EvaluationConfig(dataset="cityscapes"),
    )  # fmt: skip


def teacher(images: Tensor) -> Tensor:
    return torch.zeros(len(images), 19, *images.shape[-2:])


def test_each_token_is_hidden_with_the_same_chance() -> None:
    batch = random_batch().to_device(torch.device("cpu"))
    context = StepContext(step=0, seed=0, indices=batch.indices, teacher=teacher)
    (view,) = MaskedTokensConfig().build(19).views(batch, context)
    assert torch.equal(view.images, batch.target_images)
    assert view.hide_tokens is not None
    hidden = view.hide_tokens(50, 60)
    assert hidden.shape == (2, 50, 60)
    assert hidden.dtype == torch.bool
    assert hidden.float().mean((1, 2)).tolist() == pytest.approx([0.7, 0.7], abs=0.03)
    assert not torch.equal(hidden[0], hidden[1])
    # A function of seed and sample: another process with the second sample alone draws the same.
    alone = replace(context, indices=batch.indices[1:], teacher=teacher)
    second = replace(batch, indices=batch.indices[1:], target_images=batch.target_images[1:])
    (view,) = MaskedTokensConfig().build(19).views(second, alone)
    assert view.hide_tokens is not None
    assert torch.equal(view.hide_tokens(50, 60)[0], hidden[1])


def test_only_the_masked_view_hides_and_the_teacher_never(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool]] = []  # whether tokens were hidden, and whether a graph is made
    original = VisionTransformer.patches

    def patches(self: VisionTransformer, images: Tensor, hide: object) -> Tensor:
        seen.append((hide is not None, torch.is_grad_enabled()))
        return original(self, images, hide)  # type: ignore[arg-type]

    monkeypatch.setattr(VisionTransformer, "patches", patches)
    run = tiny_run(experiment())
    before = run.student.get_parameter("backbone.mask_token").clone()
    result = train_step(run, random_batch())
    assert sorted(seen) == [(False, False), (False, True), (True, True)]
    assert [view.name for view in result.views] == ["source", "masked_tokens"]
    after = run.student.get_parameter("backbone.mask_token")
    assert not torch.equal(before, after)  # it is trained
    assert after.grad is not None


def test_targets_are_jittered_alike_for_both_views() -> None:
    batch = random_batch().to_device(torch.device("cpu"))
    context = StepContext(step=0, seed=0, indices=batch.indices, teacher=teacher)
    jitter = JitterConfig()
    (masked,) = MaskedTokensConfig(target_jitter=jitter).build(19).views(batch, context)
    mix = ClassMixConfig(target_jitter=jitter, jitter=None)
    (mixed,) = mix.build(19).views(batch, context)
    from_target = (mixed.images == masked.images).all(1)
    from_source = (mixed.images == batch.source_images).all(1)
    assert (from_target | from_source).all()
    assert from_target.any()
    assert from_source.any()
    assert not torch.equal(masked.images, batch.target_images)


def test_source_images_are_jittered_for_the_supervised_loss_only() -> None:
    batch = random_batch().to_device(torch.device("cpu"))
    context = StepContext(step=0, seed=0, indices=batch.indices)
    config = SupervisedConfig(jitter=JitterConfig())
    assert config.reads() == config.adds() == {"jittered_source"}
    (view,) = config.build(19).views(batch, context)
    assert view.labels is batch.source_labels
    assert not torch.equal(view.images, batch.source_images)
    assert SupervisedConfig().build(19).views(batch, context) == ()
    assert SupervisedConfig().reads() == {"source"}


def test_a_network_without_a_mask_token_is_refused() -> None:
    one = experiment()
    validate(one)
    one.model.encoder.name = "resnet18"  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"'masked_tokens' needs an encoder with a mask token.*"
                                         r"--set model.encoder.name=dinov2_vitb14"):  # fmt: skip
        validate(one)
    with pytest.raises(InputError, match="hidden"):
        validate(experiment(hidden=1.5))
