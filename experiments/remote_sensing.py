"""Aerial images: ISPRS Vaihingen with labels, and Potsdam adapted to it.

All presets need tiles of 512x512 from scripts/prepare_vaihingen.py with its defaults: the official
split of areas, eroded ground truth, near infrared, red and green at 9 cm. Half of a training tile
is also in the next one; scored tiles overlap only in an area's last row and column.

Document 001 says of `vaihingen_mask2former_r50`: Vaihingen, Mask2Former, ResNet-50,
90000 steps, mIoU 75.97, mAcc 85.52. Not known or inferred:
- its configuration: taken to be mmsegmentation's for Cityscapes with 90000 steps, the only official
  one of that length, on the crops and augmentations that mmsegmentation has for Vaihingen;
- its split: "about 600 train and 150 val" tiles are the 344 + 398 tiles of the official areas,
  split again, apparently at random, so that both parts show the same areas. If so, 75.97 is too
  high for a comparison with the official split, which these presets use;
- its batch: 2, which fits the GPU that it names.
`vaihingen_deeplabv3plus_r101` is in no document: it is mmsegmentation's configuration with another
encoder and another projection of the pyramid, as in experiments/clothes.py.

The document kept the snapshot that scored best. This library does not select by the labels that it
scores on: the last snapshot counts, and the others can be evaluated.
"""

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.experiments.gta5_cityscapes import gc_640x360_b2_source_only
from uda.experiments.mmsegmentation import deeplabv3plus, distorted
from uda.models.mask2former import Mask2FormerConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.mask_classification import MaskClassificationConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig

_TILE = (512, 512)  # pixels (height, width)


def vaihingen_mask2former_r50() -> Experiment:
    """Vaihingen, Mask2Former on a ResNet-50: 100 queries, nine decoder layers, 90000 steps."""
    return Experiment(
        data=distorted("vaihingen", box=_TILE),
        # Weight and bias of the backbone's batch norm fixed, statistics those of the batch.
        model=Mask2FormerConfig(backbone="resnet50", batch_norm="frozen_affine"),
        objectives={"masks": MaskClassificationConfig()},
        train=TrainConfig(
            steps=90_000,
            batch_size=2,
            precision="float32",
            optimizer=OptimizerConfig(name="adamw", lr=1e-4, weight_decay=0.05),
            backbone_lr_factor=0.1,
            head_lr_factor=1.0,
            decay_norms=False,
            max_grad_norm=0.01,
        ),
        evaluation=EvaluationConfig.following("native", dataset="vaihingen"),
    )


def vaihingen_deeplabv3plus_r101() -> Experiment:
    """Vaihingen, DeepLabV3+ on a ResNet-101 by mmsegmentation's recipe, 80000 steps of 16."""
    data = distorted("vaihingen", box=_TILE)
    experiment = deeplabv3plus(data, backbone="resnet101", protocol="native")
    experiment.train.steps, experiment.train.batch_size = 80_000, 16
    return experiment


def potsdam_to_vaihingen_source_only() -> Experiment:
    """Potsdam labels alone, scored on Vaihingen: the baseline of the adaptation."""
    experiment = gc_640x360_b2_source_only()  # its network, loss and schedule
    experiment.data = DataConfig(source=_tiles("potsdam"), crop=_TILE)
    experiment.evaluation = EvaluationConfig.following("native", dataset="vaihingen")
    return experiment


def potsdam_to_vaihingen() -> Experiment:
    """Potsdam to unlabeled Vaihingen by class mix under a mean teacher.

    Why class mix: objects seen from above can be anywhere and hide nothing, so pasted ones stay
    plausible; and cars, few pixels in all, are pasted as often as other classes. A discriminator of
    outputs has less to learn than in streets: no place is typical of a class.
    """
    experiment = potsdam_to_vaihingen_source_only()
    experiment.data.target = _tiles("vaihingen")
    experiment.objectives["class_mix"] = ClassMixConfig(threshold=0.9)
    experiment.teacher = TeacherConfig(momentum=0.99)
    return experiment


def _tiles(dataset: str) -> DomainConfig:
    """Tiles at their size times a moderate factor: one resolution for both cities."""
    return DomainConfig(
        datasets=(dataset,), size=_TILE, scale=(0.8, 1.2), keep_ratio=True, mirror=True
    )
