"""The experiment log's runs with one head and one discriminator, as they were meant.

The description of gta5_cityscapes.py applies here as well.
"""

from uda.experiment import Experiment
from uda.experiments.gta5_cityscapes import aagc_640x360_b2
from uda.experiments.parts import balanced_hard, cityscapes
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.fix_match import FixMatchConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.teacher import TeacherConfig

_CUT_MIX_RUN = "snapshots/aagc_640x360_b2_single_cutmix_real"


def aagc_640x360_b2_single() -> Experiment:
    """CycleGTA5, adversarial on one level: one head, one discriminator."""
    experiment = aagc_640x360_b2()
    experiment.model = DeepLabV3PlusConfig(
        backbone="resnet101", batch_norm="frozen_affine", auxiliary_head=False
    )
    experiment.objectives = {
        "supervised": balanced_hard(auxiliary_weight=0.0),
        # The log gave its only head the weight of an auxiliary one, 0.0002.
        "adversarial": AdversarialConfig(
            main_weight=0.001,
            loss="least_squares",
            discriminator="multi_scale",
            gradient_penalty=0.01,
        ),
    }
    return experiment


def aagc_640x360_b2_single_cutmix() -> Experiment:
    """The same and CutMix: boxes of target images, labeled by a mean teacher, in source images."""
    experiment = aagc_640x360_b2_single()
    experiment.objectives["cut_mix"] = CutMixConfig(
        weight=0.5, threshold=0.9, class_balance=True, hardest=0.2
    )
    experiment.teacher = TeacherConfig(momentum=0.99)
    return experiment


def aagc_640x360_b2_single_cutmix_real() -> Experiment:
    """What the log's fix of its CutMix was to be: the same as aagc_640x360_b2_single_cutmix."""
    return aagc_640x360_b2_single_cutmix()


def aagc_640x360_b2_single_cutmix_real_d1000() -> Experiment:
    """CutMix with the first 1000 target images."""
    experiment = aagc_640x360_b2_single_cutmix_real()
    experiment.data.target = cityscapes(first=1000)
    return experiment


def aagc_640x360_b2_single_cutmix_real_d500() -> Experiment:
    """CutMix with the first 500 target images."""
    experiment = aagc_640x360_b2_single_cutmix_real()
    experiment.data.target = cityscapes(first=500)
    return experiment


def aagc_640x360_b2_single_cutmix_real_d100() -> Experiment:
    """CutMix with the first 100 target images."""
    experiment = aagc_640x360_b2_single_cutmix_real()
    experiment.data.target = cityscapes(first=100)
    return experiment


def aagc_640x360_b2_single_fixmatch() -> Experiment:
    """aagc_640x360_b2_single and FixMatch: strong views learn what a teacher sees in weak ones."""
    experiment = aagc_640x360_b2_single()
    experiment.objectives["fix_match"] = FixMatchConfig(
        threshold=0.95, policy="autoaugment_log", jitter=None
    )
    experiment.teacher = TeacherConfig(momentum=0.99)
    return experiment


def aagc_640x360_b2_single_cutmix_student_gt() -> Experiment:
    """The CutMix network continued on the target's ground truth alone."""
    experiment = _student_alone()
    experiment.data.source = cityscapes()
    experiment.data.target = None
    experiment.objectives = {"supervised": SupervisedConfig(auxiliary_weight=0.0)}
    return experiment


def aagc_640x360_b2_single_cutmix_student() -> Experiment:
    """The log's name of the student that it scored: aagc_640x360_b2_single_cutmix_student_gt."""
    return aagc_640x360_b2_single_cutmix_student_gt()


def aagc_640x360_b2_single_cutmix_student_own() -> Experiment:
    """The CutMix network continued on its own pseudo-labels alone (--threshold 0)."""
    experiment = _student_alone()
    experiment.data.pseudo_labels = f"{_CUT_MIX_RUN}/pseudo_labels"
    experiment.objectives = {"pseudo_label": PseudoLabelConfig(auxiliary_weight=0.0)}
    return experiment


def aagc_640x360_b2_single_cutmix_student_conf05() -> Experiment:
    """The CutMix network continued on its own pseudo-labels alone (--threshold 0.5)."""
    experiment = aagc_640x360_b2_single_cutmix_student_own()
    experiment.data.pseudo_labels = f"{_CUT_MIX_RUN}/pseudo_labels_conf05"
    return experiment


def aagc_640x360_b2_single_finetune() -> Experiment:
    """The CutMix network continued as aagc_640x360_b2_single, without CutMix."""
    experiment = aagc_640x360_b2_single()
    experiment.train.initial_snapshot = f"{_CUT_MIX_RUN}/GTA5_45000.pth"
    return experiment


def _student_alone() -> Experiment:
    """The CutMix network, to be trained on with the target's images and no source."""
    experiment = aagc_640x360_b2_single()
    experiment.data.source = None
    experiment.train.initial_snapshot = f"{_CUT_MIX_RUN}/GTA5_45000.pth"
    return experiment
