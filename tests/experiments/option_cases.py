"""The experiments whose options tests/experiments/test_every_option.py changes one by one.

Every objective and every network of the library has a case of its own, made from its default
settings. The cases by hand are for options that need more around them to matter.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from networks import small_network
from tiny_runs import tiny_model
from trials import equip
from uda.augmentation.color_jitter import ColorJitterConfig
from uda.augmentation.jitter import JitterConfig
from uda.augmentation.policies import PolicyName
from uda.data.config import DataConfig, DomainConfig, RareClassConfig
from uda.data.sampling import TrainingSample
from uda.data.training import open_training_data
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, RestartConfig, TrainConfig
from uda.models.config import ModelConfig
from uda.models.decoders.base import DecoderConfig, decoder_configs
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.decoders.linear import LinearConfig
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.models.registry import model_configs
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.base import ObjectiveConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cross_view import CrossViewConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.functional.class_thresholds import AdaptiveConfig
from uda.objectives.functional.hard_pixels import OhemConfig
from uda.objectives.information_maximization import InformationMaximizationConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.registry import objective_configs
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.plateau import PlateauConfig
from uda.optim.schedules import CosineRestartsConfig

CROP = (32, 64)  # pixels (height, width)
BOX = (32, 60)  # not of the shape of the images, 64x128
# Some of an untrained network's pixels are as sure as this, some are not; 1 / 19 is the least.
THRESHOLD = 0.056

# Files next to the data root that options may name.
LABELS, OTHER_LABELS = "labels", "other_labels"
SNAPSHOT, WEIGHTS, ENCODER = "trained/GTA5_10.pth", "backbone.pth", "encoder.pth"


def small(root: Path, *, steps: int = 3) -> Experiment:
    """Source images, one objective, one network: what the others add to."""
    return Experiment(
        data=DataConfig(
            root=str(root),
            source=DomainConfig(datasets=("gta5",), size=(80, 150), scale=(0.8, 1.2), mirror=True),
            crop=CROP,
            workers=0,
        ),
        model=tiny_model(),
        objectives={"supervised": SupervisedConfig()},
        train=TrainConfig(
            steps=steps,
            batch_size=2,
            precision="float32",
            optimizer=OptimizerConfig(lr=0.01, nesterov=True, weight_decay=0.01),
            log_every=1,
            snapshot_every=2,
            resume_every=2,
        ),
        evaluation=EvaluationConfig(dataset="cityscapes", input_size=BOX, every=2),
    )


def choosing_crops(root: Path) -> Experiment:
    """The first crop has a class with just the largest share that is allowed."""
    experiment = small(root, steps=1)
    assert experiment.data.source is not None
    experiment.data.source.crop_max_share = 0.5
    if root.exists():  # else the options are only listed
        free = replace(experiment.data, source=replace(experiment.data.source, crop_max_share=1.0))
        first = open_training_data(free, seed=0, evaluated="cityscapes").dataset[0]
        assert isinstance(first, TrainingSample)
        assert first.source is not None
        assert first.source.labels is not None
        counts = np.bincount(first.source.labels.ravel(), minlength=256)[:255]
        experiment.data.source.crop_max_share = float(counts.max() / counts.sum())
    return experiment


def weighted(root: Path) -> Experiment:
    experiment = small(root)
    experiment.data.source = DomainConfig(
        datasets=("gta5", "cyclegta5"), weights=(9.0, 1.0), size=(80, 150)
    )
    return experiment


def rare_classes(root: Path) -> Experiment:
    """Crops that are never as wanted, so that all tries are made."""
    experiment = small(root)
    experiment.data.rare_classes = RareClassConfig(
        temperature=0.1, min_pixels=1000, min_crop_pixels=2000, tries=3
    )
    experiment.data.target = target()
    experiment.objectives["entropy"] = EntropyConfig(weight=0.1)
    assert experiment.data.source is not None
    experiment.data.source.crop_max_share = 0.2
    experiment.data.source.crop_tries = 2
    return experiment


def trained_before(root: Path) -> Experiment:
    """Begins with a network that has learned enough to say other things of other pictures."""
    experiment = small(root)
    experiment.train.initial_snapshot = str(root.parent / SNAPSHOT)
    experiment.train.optimizer.lr = 1e-6
    return experiment


def warming_up(root: Path) -> Experiment:
    experiment = small(root)
    experiment.train.warmup_steps = 2
    experiment.train.decay_norms = False
    return experiment


def in_windows(root: Path) -> Experiment:
    experiment = trained_before(root)
    experiment.evaluation.window = (24, 48)
    return experiment


def adapting(root: Path) -> Experiment:
    experiment = small(root)
    experiment.data.target = target(policy="autoaugment")
    experiment.objectives = {
        "supervised": SupervisedConfig(class_balance=True, hardest=0.2),
        "entropy": EntropyConfig(weight=0.1),
    }
    experiment.train.restart = RestartConfig(at_step=2, schedule_steps=5)
    experiment.train.schedule_steps = 4
    return experiment


def adversarial(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.target = target()
    experiment.objectives["adversarial"] = AdversarialConfig(
        auxiliary_weight=0.001,
        loss="least_squares",
        discriminator="multi_scale",
        gradient_penalty=0.01,
        optimizer=OptimizerConfig(name="adam", lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01),
    )
    return experiment


def sgd_discriminator(root: Path) -> Experiment:
    experiment = adversarial(root)
    experiment.objectives["adversarial"] = AdversarialConfig(
        optimizer=OptimizerConfig(nesterov=True, weight_decay=0.01)
    )
    return experiment


def fixed_discriminator(root: Path) -> Experiment:
    experiment = adversarial(root)
    experiment.objectives["adversarial"] = AdversarialConfig(optimizer=None)
    return experiment


def under_teacher(root: Path) -> Experiment:
    experiment = with_objective(ClassMixConfig, root)
    experiment.train.optimizer = OptimizerConfig(name="adamw", lr=0.01, weight_decay=0.01)
    return experiment


def color_jitter(root: Path) -> Experiment:
    experiment = under_teacher(root)
    jitter = ColorJitterConfig(probability=0.6, gray_probability=0.3, blur_probability=0.95)
    experiment.objectives["subject"] = ClassMixConfig(threshold=THRESHOLD, jitter=jitter)
    return experiment


def class_balanced(root: Path) -> Experiment:
    experiment = with_objective(FixMatchConfig, root)
    experiment.objectives["subject"] = FixMatchConfig(confidence="class_balanced")
    return experiment


def instance_adaptive(root: Path) -> Experiment:
    """From thresholds that an untrained network can reach."""
    experiment = with_objective(FixMatchConfig, root)
    experiment.objectives["subject"] = FixMatchConfig(
        confidence="instance_adaptive", adaptive=AdaptiveConfig(start=THRESHOLD, gamma=0.1)
    )
    return experiment


def without_a_prior(root: Path) -> Experiment:
    """Classes of equal size, as SHOT has it, over several steps."""
    experiment = with_objective(InformationMaximizationConfig, root)
    experiment.objectives["subject"] = InformationMaximizationConfig(
        diversity=1.0, diversity_rule="entropy", momentum=0.5
    )
    return experiment


def hard_pixels(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    ohem = OhemConfig(below=0.05, at_least=100)
    experiment.objectives = {"supervised": SupervisedConfig(ohem=ohem)}
    return experiment


def second_view(root: Path) -> Experiment:
    return with_objective(CrossViewConfig, root)


def with_ignored_pixels(experiment: Experiment) -> Experiment:
    """Source images are mostly smaller than the crop, so that it is padded."""
    assert experiment.data.source is not None
    experiment.data.source.size, experiment.data.source.keep_ratio = (28, 56), True
    return experiment


def cut_mix_ground_truth(root: Path) -> Experiment:
    experiment = with_ignored_pixels(small(root, steps=2))
    experiment.data.target = target()
    experiment.data.target_ground_truth = True
    experiment.objectives = {"cut_mix": CutMixConfig(labels="ground_truth")}
    experiment.model = tiny_model(auxiliary_head=False)
    return experiment


def student(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.source = None
    experiment.data.target = target()
    experiment.data.pseudo_labels = str(root.parent / LABELS)
    experiment.objectives = {"pseudo_label": PseudoLabelConfig(jitter=None)}
    return experiment


def supervised_by_target(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.data.target = target()
    experiment.data.target_ground_truth = True
    experiment.objectives["supervised_target"] = SupervisedConfig(view="target")
    return experiment


def deeplab_v2_sum(root: Path) -> Experiment:
    experiment = small(root, steps=2)
    experiment.model = DeepLabV2Config(
        backbone="resnet18", backbone_weights="none", backbone_width=8, levels=1, head="sum",
        aspp_rates=(1, 2, 18, 24), aspp_branches=2, dropout=0.0,
    )  # fmt: skip
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    return experiment


def scheduled(root: Path) -> Experiment:
    """A plateau where nothing is so much better than the best, then cosines of two steps."""
    experiment = small(root, steps=9)
    experiment.evaluation.every = 1
    experiment.train.plateau = PlateauConfig(patience=0, factor=0.5, threshold=0.9)
    experiment.train.cosine_restarts = CosineRestartsConfig(period=2, floor=0.2, from_step=4)
    experiment.train.resume_every = experiment.train.snapshot_every = 9
    return experiment


def target(policy: PolicyName | None = None) -> DomainConfig:
    return DomainConfig(datasets=("cityscapes",), size=(48, 90), policy=policy)


# --- every objective and every network of the library

# Settings that let a small experiment show what the options do, where a class has such a field.
TELLING: dict[str, Any] = {
    "threshold": THRESHOLD,
    "points": 64,
    "block": 8,
    "channels": 8,
    "rates": (1, 2),
    "jitter": JitterConfig(blur_probability=0.9, noise_probability=0.9),
    "optimizer": OptimizerConfig(name="adam", lr=1e-4, betas=(0.9, 0.99), weight_decay=0.01),
}


def with_objective(config: type[ObjectiveConfig], root: Path) -> Experiment:
    """`small` with an objective of this class, called "subject", and what it needs."""
    experiment = with_ignored_pixels(small(root, steps=2))
    names = [field.name for field in fields(config) if field.name in TELLING]
    subject = replace(config(), **{name: deepcopy(TELLING[name]) for name in names})
    if isinstance(subject, SupervisedConfig):
        subject.hardest = 0.5  # all pixels of its crops have a label
    objectives = experiment.objectives | {"subject": subject}
    equip(experiment, objectives, target=target(), pseudo_labels=root.parent / LABELS)
    if experiment.model.has_queries:
        del experiment.objectives["supervised"]  # it wants an auxiliary head
    return experiment


def with_network(config: type[ModelConfig], root: Path) -> Experiment:
    """`small` with a network of this class."""
    experiment = small(root, steps=2)
    experiment.model = small_network(config)
    if not experiment.model.has_auxiliary_head:
        experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    return experiment


def with_decoder(config: type[DecoderConfig], root: Path) -> Experiment:
    """`small` with a network whose decoder is of this class."""
    experiment = with_network(EncoderDecoderConfig, root)
    names = [field.name for field in fields(config) if field.name in TELLING]
    decoder = replace(config(), **{name: deepcopy(TELLING[name]) for name in names})
    experiment.model = EncoderDecoderConfig(
        encoder=EncoderConfig(name="resnet18", weights="none", width=8, output_stride=8),
        decoder=decoder,
    )
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    return experiment


def with_transformer(root: Path) -> Experiment:
    """`small` with a transformer for an encoder."""
    experiment = with_network(EncoderDecoderConfig, root)
    experiment.model = EncoderDecoderConfig(
        encoder=EncoderConfig(name="mit_b0", weights="none"), decoder=LinearConfig()
    )
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    return experiment


def with_details(root: Path) -> Experiment:
    """`with_transformer`, which also looks at details."""
    experiment = with_transformer(root)
    assert isinstance(experiment.model, EncoderDecoderConfig)
    experiment.model.decoder = DAFormerConfig(channels=4, fusion="conv1")
    experiment.model.hrda = HrdaConfig(
        crop=32, attention=DAFormerConfig(channels=4, fusion="conv1")
    )
    return experiment


class Case(NamedTuple):
    build: Callable[[Path], Experiment]
    walked: tuple[str, ...]  # options below these are changed


CASES = {
    "small": Case(small, ("train",)),
    "warming_up": Case(warming_up, ("train.warmup", "train.warmup_start", "train.undecayed")),
    "trained_before": Case(trained_before, ("evaluation", "train.initial_snapshot")),
    "in_windows": Case(in_windows, ("evaluation.overlap", "evaluation.window_average")),
    "adapting": Case(
        adapting,
        (
            "data",
            "objectives.supervised",
            "train.restart",
            "train.schedule_steps",
            "train.unlabeled_images",
        ),
    ),
    "adversarial": Case(adversarial, ("objectives.adversarial",)),
    "sgd_discriminator": Case(sgd_discriminator, ("objectives.adversarial.optimizer",)),
    "fixed_discriminator": Case(fixed_discriminator, ("objectives.adversarial",)),
    "under_teacher": Case(
        under_teacher, ("teacher", "train.optimizer", "data.target.ignored_borders")
    ),
    "color_jitter": Case(color_jitter, ("objectives.subject.jitter",)),
    "class_balanced": Case(class_balanced, ("objectives.subject.portion",)),
    "instance_adaptive": Case(instance_adaptive, ("objectives.subject.adaptive",)),
    "without_a_prior": Case(without_a_prior, ("objectives.subject",)),
    "choosing_crops": Case(choosing_crops, ("data.source.crop_share_rule",)),
    "weighted": Case(weighted, ("data.source.weights",)),
    "rare_classes": Case(rare_classes, ("data.rare_classes", "data.source.crop_tries")),
    "hard_pixels": Case(hard_pixels, ("objectives.supervised.ohem",)),
    "ground_truth": Case(
        cut_mix_ground_truth, ("data.target", "data.target_ground_truth", "objectives.cut_mix")
    ),
    "second_view": Case(second_view, ("data.second_target_view", "teacher")),
    "student": Case(
        student,
        (
            "data.target.crop_label_values",
            "data.pseudo_labels",
            "data.pseudo_labels_mapped_twice",
        ),
    ),
    "supervised_by_target": Case(supervised_by_target, ("objectives.supervised_target",)),
    "deeplab_v2_sum": Case(deeplab_v2_sum, ("model",)),
    "scheduled": Case(scheduled, ("train.cosine_restarts", "train.plateau")),
    **{
        f"objective_{name}": Case(partial(with_objective, config), ("objectives.subject",))
        for name, config in objective_configs().items()
    },
    **{
        f"network_{name}": Case(partial(with_network, config), ("model",))
        for name, config in model_configs().items()
    },
    "transformer": Case(
        with_transformer, ("model.encoder.drop_path", "model.encoder.patch_norm_eps")
    ),
    "details": Case(with_details, ("model.hrda.crop",)),
    **{
        f"decoder_{name}": Case(partial(with_decoder, config), ("model.decoder",))
        for name, config in decoder_configs().items()
    },
}
