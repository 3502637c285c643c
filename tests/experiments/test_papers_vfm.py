"""VFM-UDA, VFM-UDA++ and UniMatch V2: what their presets run."""

import copy

import pytest
import torch
import torch.nn.functional as F

from uda.experiment import Experiment
from uda.experiments import load_preset
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.frozen_distance import FrozenDistanceConfig
from uda.objectives.functional.mixing import random_blocks
from uda.objectives.masked_image import MaskedImageConfig
from uda.objectives.masked_tokens import MaskedTokensConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.schedules import learning_rate_factor

VFM_UDA = ("vfm_uda_gta5_s", "vfm_uda_gta5_b", "vfm_uda_gta5")
UNIMATCH = ("unimatch_v2_d186", "unimatch_v2_gta5")


def model_of(experiment: Experiment) -> EncoderDecoderConfig:
    assert isinstance(experiment.model, EncoderDecoderConfig)
    return experiment.model


def test_sizes_of_vfm_uda_differ_in_nothing_else() -> None:
    presets = [load_preset(name) for name in VFM_UDA]
    names = [model_of(preset).encoder.name for preset in presets]
    assert names == ["dinov2_vits14", "dinov2_vitb14", "dinov2_vitl14"]
    for preset in presets:
        model_of(preset).encoder = copy.copy(model_of(presets[0]).encoder)
    assert presets[0] == presets[1] == presets[2]


def test_rates_of_vfm_uda() -> None:
    """The values of its code, for 8 images: the root of the batch, then warm-up up to 1, which is
    no factor of the decay: there is a jump."""
    train = load_preset("vfm_uda_gta5").train
    assert train.optimizer.lr == pytest.approx(1.414e-4, rel=1e-3)
    assert (train.backbone_lr_factor, train.head_lr_factor, train.layer_decay) == (0.1, 1, 1)
    assert train.decay_norms
    wanted = {0: 0.001, 1: 0.00166644, 1499: 1.0, 1500: 0.9625, 20000: 0.5, 39999: 2.5e-5}
    for step, factor in wanted.items():
        found = learning_rate_factor(
            step, steps=train.steps, warmup_steps=train.warmup_steps, power=train.power,
            warmup_start=train.warmup_start, warmup=train.warmup,
        )  # fmt: skip
        assert found == pytest.approx(factor, rel=1e-5)


def test_images_of_vfm_uda_are_resized_to_80_tokens() -> None:
    model = model_of(load_preset("vfm_uda_gta5"))
    with torch.device("meta"):
        network = model.without_weights().build(19)
    assert network.input_scale is not None
    assert int(network.input_scale * 1024) // network.divisor * network.divisor == 80 * 14


def test_views_of_vfm_uda() -> None:
    experiment = load_preset("vfm_uda_gta5")
    supervised, mixed, masked = (
        experiment.objectives[name] for name in ("supervised", "class_mix", "masked_tokens")
    )
    assert isinstance(supervised, SupervisedConfig)
    assert isinstance(mixed, ClassMixConfig)
    assert isinstance(masked, MaskedTokensConfig)
    assert supervised.over == "labeled"
    assert mixed.over == masked.over == "all"
    # The target is jittered as the source is, and once more after mixing and before masking.
    assert supervised.jitter == mixed.target_jitter == masked.target_jitter
    assert mixed.jitter == masked.jitter
    assert experiment.teacher is not None
    assert experiment.teacher.mirrored
    assert experiment.data.target is not None
    assert experiment.data.target.ignored_borders == (0.03, 0.25, 0.03, 0.03)
    rare = experiment.data.rare_classes
    assert rare is not None
    assert (rare.temperature, rare.min_pixels, rare.min_crop_pixels, rare.tries) == (
        0.05, 3000, 6000, 20
    )  # fmt: skip


def test_vfm_uda_plusplus_masks_18_blocks_on_a_side() -> None:
    """Blocks of 62 or 63 pixels of the image of 1120, as nearest interpolation cuts them there."""
    experiment = load_preset("vfm_uda_plusplus_gta5")
    masked = experiment.objectives["masked_image"]
    assert isinstance(masked, MaskedImageConfig)
    generator = [torch.Generator().manual_seed(0)]
    blocks = random_blocks((1024, 1024), generator, side=masked.block, share=0.7)
    changes = (blocks[0].diff(dim=0)).any(1).nonzero().flatten() + 1
    assert len(changes) == 17
    ours = changes * (1120 / 1024)
    theirs = torch.arange(18.0).view(1, 1, 18)
    theirs = (F.interpolate(theirs, 1120, mode="nearest")[0, 0].diff() > 0).nonzero().flatten() + 1
    assert (theirs.diff() >= 62).all()
    assert (theirs.diff() <= 63).all()
    assert (ours - theirs).abs().max() < 1.2  # a block's edge lies within a pixel of theirs


def test_vfm_uda_plusplus_in_the_rest() -> None:
    experiment = load_preset("vfm_uda_plusplus_gta5")
    train, distance = experiment.train, experiment.objectives["frozen_distance"]
    assert train.optimizer.lr == pytest.approx(2.828e-5, rel=1e-3)
    assert train.layer_decay == 0.9
    assert isinstance(distance, FrozenDistanceConfig)
    assert distance.optimizer.lr == train.optimizer.lr
    assert distance.encoder == "dinov2_vitl14_reg"
    assert distance.size == (29 * 14, 29 * 14)
    assert "masked_tokens" not in experiment.objectives
    with torch.device("meta"):
        network = model_of(experiment).without_weights().build(19)
    assert int(1.1 * 1024) // network.divisor * network.divisor == 1120


def test_unimatch_v2_with_target_labels_and_without() -> None:
    labeled, other = (load_preset(name) for name in UNIMATCH)
    assert labeled.data.source is not None
    assert labeled.data.target is not None
    assert labeled.data.source.first == 186
    assert labeled.data.target.first is None
    assert not labeled.data.target_ground_truth
    assert {o.weight for o in labeled.objectives.values()} == {0.5}
    train = labeled.train
    assert train.optimizer.lr * train.backbone_lr_factor == pytest.approx(5e-6)
    assert labeled.evaluation.window is not None
    assert round(798 * (1 - labeled.evaluation.overlap)) == 532
    other.data.source = labeled.data.source
    assert other == labeled
