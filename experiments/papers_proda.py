"""ProDA on DeepLab-v2, GTA5 to Cityscapes: warm-up, denoising, two distillations.

Each stage starts from the one before. What differs from the released code is in docs/methods.md.
"""

from uda.data.config import DataConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.experiments.parts import INITIAL_WEIGHTS, cityscapes, gta5
from uda.models.proda import ProDAConfig
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.distillation import DistillationConfig
from uda.objectives.proda import ProDADenoiseConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig

# SimCLRv2's ResNet-101 of width 1 without selective kernels, with torch's names of a ResNet.
SIMCLR_WEIGHTS = "weights/simclr_r101_1x_sk0.pth"


def proda_gta5_warmup() -> Experiment:
    """ProDA, stage 0: AdaptSegNet on one level with a least-squares discriminator."""
    experiment = _proda(lr=2.5e-4)
    experiment.model = ProDAConfig(
        backbone_weights=INITIAL_WEIGHTS, input_norm=False, batch_norm="frozen"
    )
    experiment.objectives["adversarial"] = AdversarialConfig(main_weight=0.01, loss="least_squares")
    return experiment


def proda_gta5_denoise() -> Experiment:
    """ProDA, stage 1: the warm-up's labels, corrected online by prototypes of the classes."""
    experiment = _proda(lr=1e-4)
    experiment.model = ProDAConfig(backbone_weights=INITIAL_WEIGHTS, input_norm=False)
    experiment.train.initial_snapshot = "snapshots/proda_gta5_warmup/GTA5_90000.pth"
    # As many images as in 4 passes over the training split.
    experiment.objectives["proda"] = ProDADenoiseConfig(prototype_batches=2975)
    experiment.teacher = TeacherConfig(momentum=0.999)
    return experiment


def proda_gta5_distill() -> Experiment:
    """ProDA, stage 2: a self-supervised student learns the labels and probabilities of stage 1."""
    experiment = _distilled("proda_gta5_denoise")
    experiment.model = ProDAConfig(backbone_weights=SIMCLR_WEIGHTS)
    return experiment


def proda_gta5_distill_again() -> Experiment:
    """ProDA, stage 3: the student of stage 2 learns its own labels and probabilities."""
    experiment = _distilled("proda_gta5_distill")
    experiment.model = ProDAConfig(backbone_weights=SIMCLR_WEIGHTS)
    experiment.train.initial_snapshot = "snapshots/proda_gta5_distill/GTA5_90000.pth"
    return experiment


def _distilled(parent: str) -> Experiment:
    """Distillation of the preset `parent`, whose labels pseudo_label.py --threshold 0.95 --flip
    wrote."""
    experiment = _proda(lr=6e-4)
    experiment.data.pseudo_labels = f"snapshots/{parent}/pseudo_labels"
    experiment.objectives["distillation"] = DistillationConfig(
        network=f"snapshots/{parent}/GTA5_90000.pth"
    )
    return experiment


def _proda(*, lr: float) -> Experiment:
    """Source labels, target images, and the settings that all stages share."""
    return Experiment(
        data=DataConfig(
            # The original makes the longer side about 2200 pixels.
            source=gta5(size=(1250, 2200), scale=(1.0, 1.0), crop_label_values=0),
            target=cityscapes(size=(1100, 2200), mirror=True),
            crop=(512, 896),
        ),
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.0)},
        train=TrainConfig(
            steps=90_000,
            batch_size=4,
            optimizer=OptimizerConfig(name="sgd", lr=lr, momentum=0.9, weight_decay=2e-4),
            head_lr_factor=10.0,
            power=0.9,
        ),
        evaluation=EvaluationConfig.following("native", dataset="cityscapes"),
    )
