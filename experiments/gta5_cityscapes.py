"""GTA5 and CycleGTA5 -> Cityscapes at 640x360 (width x height), batch 2: the experiment log's runs.

`gc` trains on GTA5, `aagc` on CycleGTA5. Data, losses, optimizers and schedules have the log's
figures. What is not the log's, the same in every preset so that they can be compared:
- network: DeepLabV3+ on a torchvision ResNet-101 at output stride 16, with an auxiliary head on
  layer3 and group norm in the heads, instead of DeepLab-v2 variants at stride 8 that start from a
  Caffe file, align corners, and in part ignore half of their branches;
- schedule: 45000 steps that end where the network is evaluated, instead of a fraction of 250000;
- backbone learning rate: the nominal one; the log's optimizer held each weight three times;
- precision: bfloat16 autocast; batch statistics over both images of a batch, not one per device;
- evaluation: main head, one view of 1024x512, instead of two heads and four views.
"""

from uda.config import Experiment, TrainConfig
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation import EvaluationConfig
from uda.models import DeepLabV3PlusConfig
from uda.objectives import (
    AdversarialConfig,
    ClassMixConfig,
    CutMixConfig,
    MemoryRegularizationConfig,
    PseudoLabelConfig,
    SupervisedConfig,
)
from uda.optimizers import OptimizerConfig
from uda.photometric import JitterConfig
from uda.teacher import TeacherConfig


def gc_640x360_b2_source_only() -> Experiment:
    """GTA5 labels alone: what every adaptation has to beat."""
    return Experiment(
        data=DataConfig(
            source=DomainConfig(
                datasets=("gta5",),
                size=(720, 1280),
                scale=(0.8, 1.2),
                mirror=True,
                crop_label_values=10,
            ),
            crop=(360, 640),
        ),
        # Batch statistics, weight and bias of the backbone's batch norm fixed.
        model=DeepLabV3PlusConfig(backbone="resnet101", batch_norm="frozen_affine"),
        objectives={"supervised": SupervisedConfig()},
        train=TrainConfig(
            steps=45_000,
            batch_size=2,
            optimizer=OptimizerConfig(
                name="sgd", lr=2e-4, momentum=0.9, nesterov=True, weight_decay=5e-4
            ),
            head_lr_factor=10.0,
            warmup_steps=5_000,
        ),
        evaluation=EvaluationConfig(dataset="cityscapes", split="val", input_size=(512, 1024)),
    )


def aagc_640x360_b2_source_only() -> Experiment:
    """CycleGTA5 labels alone."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.source.datasets = ("cyclegta5",)
    return experiment


def aagc_640x360_b2() -> Experiment:
    """CycleGTA5, adversarial on two levels, memory regularization in the last two thirds."""
    experiment = aagc_640x360_b2_source_only()
    experiment.data.target = _cityscapes()
    experiment.objectives["supervised"] = _balanced_hard()
    experiment.objectives["adversarial"] = AdversarialConfig(
        main_weight=0.001,
        auxiliary_weight=0.0002,
        loss="least_squares",
        discriminator="multi_scale",
        gradient_penalty=0.01,
        source_prediction="fused",
    )
    experiment.objectives["memory"] = MemoryRegularizationConfig(weight=0.1, start_step=15_000)
    return experiment


def aagc_640x360_b2_student() -> Experiment:
    """The same, continued with its own pseudo-labels on all 22973 Cityscapes training images."""
    experiment = aagc_640x360_b2()
    assert experiment.data.target is not None
    experiment.data.target.splits = ("train_extra", "train")
    experiment.data.pseudo_labels = "snapshots/aagc_640x360_b2/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/aagc_640x360_b2/GTA5_45000.pth"
    # The log's student computed its labels but never learned from them; this one does.
    experiment.objectives["pseudo_label"] = PseudoLabelConfig()
    return experiment


def gc_640x360_b2_class_mix() -> Experiment:
    """GTA5 and DACS: class mix under a mean teacher, mixed images jittered."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = _cityscapes()
    experiment.objectives["class_mix"] = ClassMixConfig(threshold=0.9)
    experiment.teacher = TeacherConfig(momentum=0.99)
    return experiment


def gc_640x360_b2_class_mix_student() -> Experiment:
    """GTA5 and the pseudo-labels of gc_640x360_b2_class_mix, learned on jittered target images."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = _cityscapes()
    experiment.data.pseudo_labels = "snapshots/gc_640x360_b2_class_mix/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/gc_640x360_b2_class_mix/GTA5_45000.pth"
    experiment.objectives["pseudo_label"] = PseudoLabelConfig(jitter=JitterConfig())
    return experiment


def gc_640x360_b2_cut_mix() -> Experiment:
    """GTA5 and CutMix: boxes of target images, labeled by a mean teacher, in source images."""
    experiment = gc_640x360_b2_class_mix()
    del experiment.objectives["class_mix"]
    experiment.objectives["cut_mix"] = CutMixConfig(threshold=0.9)
    return experiment


def cityscapes_seg() -> Experiment:
    """Oracle: supervised by the labels of the 2975 Cityscapes training images."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.source = _cityscapes()
    experiment.objectives["supervised"] = _balanced_hard()
    return experiment


def _balanced_hard() -> SupervisedConfig:
    """The log's cross-entropy: rare classes weigh more, the hardest fifth of the pixels counts."""
    return SupervisedConfig(auxiliary_weight=0.5, class_balance=True, hardest=0.2)


def _cityscapes() -> DomainConfig:
    """As the log trained on it: halved, cropped, neither scaled nor mirrored."""
    return DomainConfig(datasets=("cityscapes",), splits=("train",), size=(512, 1024))
