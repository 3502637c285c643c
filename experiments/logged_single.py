"""The experiment log's runs with one level, as they were run: CutMix, FixMatch, and what follows.

The second half of logged.py's description applies here as well.
"""

from uda.data.config import SecondViewConfig
from uda.experiment import Experiment, RestartConfig
from uda.experiments.logged import logged_aagc_640x360_b2
from uda.experiments.parts import balanced_hard, cityscapes, deeplab_v2
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.cross_view import CrossViewConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.teacher import TeacherConfig

_CUT_MIX_RUN = "snapshots/logged_aagc_640x360_b2_single_cutmix_real"


def logged_aagc_640x360_b2_single() -> Experiment:
    """CycleGTA5 and one level; the log's "basic"."""
    experiment = logged_aagc_640x360_b2()
    # Scripts and names say two images per step, the log's text says four: not recorded.
    experiment.model = deeplab_v2(levels=1, batch_norm_parts=2)
    experiment.objectives = {
        "supervised": balanced_hard(auxiliary_weight=0.0),
        # The weight that belongs to an auxiliary head, by the name of the option.
        "adversarial": _single_discriminator(),
    }
    experiment.train.steps = 45_000
    experiment.evaluation.follow("single")
    return experiment


def logged_aagc_640x360_b2_single_cutmix() -> Experiment:
    """Supervised: CutMix in place, with the target's ground truth, and no clean source image."""
    experiment = logged_aagc_640x360_b2_single()
    experiment.data.target_ground_truth = True
    experiment.objectives = {
        # "loss + 0.5 * loss": the paste had overwritten the clean batch, so both are the mixed one.
        "cut_mix": CutMixConfig(
            weight=1.5,
            labels="ground_truth",
            one_box_per_batch=True,
            class_balance=True,
            hardest=0.2,
        ),
        "adversarial": _single_discriminator(source_view="cut_mix"),
    }
    experiment.train.steps = 40_000
    experiment.train.restart = RestartConfig(at_step=30_000, schedule_steps=45_000)
    return experiment


def logged_aagc_640x360_b2_single_cutmix_real() -> Experiment:
    """Supervised: the log's repair of its CutMix, which changed nothing but the restart."""
    experiment = logged_aagc_640x360_b2_single_cutmix()
    experiment.train.restart = RestartConfig(at_step=35_000, schedule_steps=45_000)
    return experiment


def logged_aagc_640x360_b2_single_cutmix_real_d1000() -> Experiment:
    """Supervised: CutMix with the ground truth of the first 1000 target images."""
    experiment = logged_aagc_640x360_b2_single_cutmix_real()
    experiment.data.target = cityscapes(first=1000)
    experiment.train.steps = 20_000
    experiment.train.restart = None
    return experiment


def logged_aagc_640x360_b2_single_cutmix_real_d500() -> Experiment:
    """Supervised: CutMix with the ground truth of the first 500 target images."""
    experiment = logged_aagc_640x360_b2_single_cutmix_real_d1000()
    experiment.data.target = cityscapes(first=500)
    experiment.train.steps = 30_000
    return experiment


def logged_aagc_640x360_b2_single_cutmix_real_d100() -> Experiment:
    """Supervised: CutMix with the ground truth of the first 100 target images."""
    experiment = logged_aagc_640x360_b2_single_cutmix_real_d1000()
    experiment.data.target = cityscapes(first=100)
    return experiment


def logged_aagc_640x360_b2_single_fixmatch() -> Experiment:
    """No FixMatch: two target crops, not aligned, are pulled together pixel by pixel."""
    experiment = logged_aagc_640x360_b2_single()
    experiment.data.second_target_view = SecondViewConfig(policy="autoaugment_log")
    experiment.objectives["supervised"].weight = 1.5  # the same loss twice, the second time halved
    # A second discriminator that was built, never trained, and used as a loss.
    experiment.objectives["untrained"] = AdversarialConfig(
        main_weight=0.001, loss="least_squares", discriminator="multi_scale", optimizer=None
    )
    # The line that adds this term could not run as committed; the result suggests that it did run.
    experiment.objectives["cross_view"] = CrossViewConfig(weight=0.1, start_step=15_000)
    experiment.teacher = TeacherConfig(momentum=0.0)  # the student itself, without gradient
    experiment.train.steps = 30_000
    return experiment


def logged_aagc_640x360_b2_single_cutmix_student_gt() -> Experiment:
    """Supervised: the CutMix network continued on the target's ground truth alone."""
    experiment = _logged_student()
    experiment.data.source = cityscapes()
    experiment.data.target = None
    experiment.objectives = {"supervised": SupervisedConfig(auxiliary_weight=0.0)}
    return experiment


def logged_aagc_640x360_b2_single_cutmix_student() -> Experiment:
    """Supervised: what the log scored under this name learned from the target's ground truth."""
    return logged_aagc_640x360_b2_single_cutmix_student_gt()


def logged_aagc_640x360_b2_single_cutmix_student_own() -> Experiment:
    """Train ids taken for raw ids: six classes, all wrong. Labels: --input-size 512x256."""
    experiment = _logged_student()
    experiment.data.pseudo_labels = f"{_CUT_MIX_RUN}/pseudo_labels"
    experiment.data.pseudo_labels_mapped_twice = True
    experiment.objectives = {"pseudo_label": PseudoLabelConfig(auxiliary_weight=0.0)}
    return experiment


def logged_aagc_640x360_b2_single_cutmix_student_conf05() -> Experiment:
    """The same with the pseudo-labels above 0.5 alone."""
    experiment = logged_aagc_640x360_b2_single_cutmix_student_own()
    experiment.data.pseudo_labels = f"{_CUT_MIX_RUN}/pseudo_labels_conf05"
    return experiment


def logged_aagc_640x360_b2_single_finetune() -> Experiment:
    """The CutMix network, which has seen target labels, continued without CutMix."""
    experiment = logged_aagc_640x360_b2_single()
    # Crop and batch were not recorded: those of every other run.
    experiment.train.initial_snapshot = f"{_CUT_MIX_RUN}/GTA5_40000.pth"
    experiment.train.steps = 10_000
    return experiment


def _logged_student() -> Experiment:
    """The one-level network after CutMix, with target images alone. The length of the runs without
    a number was not recorded."""
    experiment = logged_aagc_640x360_b2_single()
    experiment.data.source = None
    experiment.train.initial_snapshot = f"{_CUT_MIX_RUN}/GTA5_40000.pth"
    experiment.train.steps = 10_000
    return experiment


def _single_discriminator(source_view: str = "source") -> AdversarialConfig:
    return AdversarialConfig(
        main_weight=0.0002,
        loss="least_squares",
        discriminator="multi_scale",
        gradient_penalty=0.01,
        source_view=source_view,
    )
