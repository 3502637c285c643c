"""Methods beyond the experiment log, each added alone to gc_640x360_b2_source_only.

One idea per preset, so that its effect can be read off; the toy city's ladder compares them.
"""

from uda.augmentation.jitter import JitterConfig
from uda.experiment import Experiment
from uda.experiments.gta5_cityscapes import (
    aagc_640x360_b2,
    aagc_640x360_b2_source_only,
    gc_640x360_b2_source_only,
)
from uda.experiments.parts import cityscapes, cyclegta5, gta5
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.rectified_pseudo_label import RectifiedPseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig


def agc_640x360_b2_source_only() -> Experiment:
    """GTA5 and CycleGTA5 labels, mixed image by image, and nothing else."""
    experiment = aagc_640x360_b2_source_only()
    experiment.data.source = gta5(datasets=("gta5", "cyclegta5"))
    return experiment


def gc_640x360_b2_adversarial() -> Experiment:
    """GTA5 and AdaptSegNet on one level."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = cityscapes()
    experiment.objectives["adversarial"] = AdversarialConfig(main_weight=0.001)
    return experiment


def gc_640x360_b2_adversarial_multi() -> Experiment:
    """GTA5 and AdaptSegNet on two levels."""
    experiment = gc_640x360_b2_adversarial()
    experiment.objectives["adversarial"] = AdversarialConfig(
        main_weight=0.001, auxiliary_weight=0.0002
    )
    return experiment


def gc_640x360_b2_memory() -> Experiment:
    """GTA5 and memory regularization in the last two thirds."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = cityscapes()
    experiment.objectives["memory"] = MemoryRegularizationConfig(weight=0.1, start_step=15_000)
    return experiment


def gc_640x360_b2_entropy() -> Experiment:
    """GTA5 and entropy minimization on target images."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = cityscapes()
    experiment.objectives["entropy"] = EntropyConfig(weight=0.001)
    return experiment


def gc_640x360_b2_class_mix() -> Experiment:
    """GTA5 and DACS: class mix under a mean teacher, mixed images jittered."""
    experiment = _under_teacher()
    experiment.objectives["class_mix"] = ClassMixConfig(threshold=0.9)
    return experiment


def gc_640x360_b2_class_mix_student() -> Experiment:
    """GTA5 and the pseudo-labels of gc_640x360_b2_class_mix on jittered target images."""
    experiment = gc_640x360_b2_pseudo_label()
    experiment.data.pseudo_labels = "snapshots/gc_640x360_b2_class_mix/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/gc_640x360_b2_class_mix/GTA5_45000.pth"
    return experiment


def gc_640x360_b2_cut_mix() -> Experiment:
    """GTA5 and CutMix: boxes of target images, labeled by a mean teacher, in source images."""
    experiment = _under_teacher()
    experiment.objectives["cut_mix"] = CutMixConfig(threshold=0.9)
    return experiment


def gc_640x360_b2_fix_match() -> Experiment:
    """GTA5 and FixMatch: jittered target images learn what a mean teacher sees in plain ones."""
    experiment = _under_teacher()
    experiment.objectives["fix_match"] = FixMatchConfig(threshold=0.95)
    return experiment


def gc_640x360_b2_pseudo_label() -> Experiment:
    """GTA5 and the pseudo-labels of gc_640x360_b2_source_only on jittered target images."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = cityscapes()
    experiment.data.pseudo_labels = "snapshots/gc_640x360_b2_source_only/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/gc_640x360_b2_source_only/GTA5_45000.pth"
    experiment.objectives["pseudo_label"] = PseudoLabelConfig(jitter=JitterConfig())
    return experiment


def aagc_640x360_b2_rectified() -> Experiment:
    """Seg-Uncertainty's second stage: pseudo-labels of aagc_640x360_b2, weighed by variance."""
    experiment = aagc_640x360_b2()
    experiment.data.source = None
    experiment.data.target = cityscapes(
        size=(640, 1280), scale=(0.8, 1.2), mirror=True, crop_label_values=10
    )
    experiment.data.crop = (256, 512)
    experiment.data.pseudo_labels = "snapshots/aagc_640x360_b2/pseudo_labels"
    experiment.model.batch_norm = "train"
    experiment.model.dropout = 0.2
    experiment.objectives = {"rectified": RectifiedPseudoLabelConfig(class_balance=True)}
    experiment.train.initial_snapshot = "snapshots/aagc_640x360_b2/GTA5_45000.pth"
    experiment.train.steps = 100_000
    experiment.train.optimizer = OptimizerConfig(
        name="sgd", lr=1e-4, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    return experiment


def aagc_640x360_b2_mixed_d500() -> Experiment:
    """Semi-supervised: CycleGTA5 and the ground truth of the first 500 target images."""
    experiment = aagc_640x360_b2_source_only()
    experiment.data.source = cyclegta5()
    experiment.data.target = cityscapes(first=500)
    experiment.data.target_ground_truth = True
    experiment.objectives["supervised_target"] = SupervisedConfig(view="target")
    return experiment


def _under_teacher() -> Experiment:
    """Source labels, target images, and a mean teacher to label them."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = cityscapes()
    experiment.teacher = TeacherConfig(momentum=0.99)
    return experiment
