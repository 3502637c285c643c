"""Fashionpedia / iMaterialist in five groups: the system of document 002.

Known: the groups, 256x256 pixels, InceptionResNetV2 up to its features of stride 16 under
DeepLabV3+, six channels with background first, images scaled by their own extremes, Adam, 1e-3,
cross-entropy, batches of 8, 35 epochs of 676 steps, no augmentation. Inferred: the 676 steps are
those of 80 % of 6760 images, a subset of Fashionpedia that is not known; with all of its 45,623
images an epoch is 4562 steps. Unknown, and chosen here: a constant learning rate, batch norm in the
heads, no dropout, no auxiliary head. Images are resized bicubically, labels by nearest; the
document used nearest for both.

The document prints loss 0.3414, IoU 54.69, F1 61.92; its notebook, for the test images, 0.40149,
51.70, 61.93. Both are means over batches of probabilities (measure soft_batch), at 256x256.
"""

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig

_SIZE = (256, 256)
_EPOCH = 676  # steps


def fashion5_deeplabv3plus_inception_resnet_v2() -> Experiment:
    """Fashionpedia in five groups at 256x256, DeepLabV3+, InceptionResNetV2 (002: 54.69, soft)."""
    experiment = Experiment(
        data=DataConfig(source=DomainConfig(datasets=("fashion5",), size=_SIZE), crop=_SIZE),
        model=DeepLabV3PlusConfig(
            backbone="timm/inception_resnet_v2",
            input_scaling="min_max",
            head_norm="batch",
            dropout=0.0,
            auxiliary_head=False,
        ),
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.0)},
        train=TrainConfig(
            steps=35 * _EPOCH,
            batch_size=8,
            optimizer=OptimizerConfig(name="adam", lr=1e-3),
            head_lr_factor=1.0,
            final_lr_factor=1.0,
            snapshot_every=5 * _EPOCH,
        ),
        evaluation=EvaluationConfig.following("clothing_segmentation", dataset="fashion5"),
    )
    experiment.evaluation.every = 5 * _EPOCH
    experiment.evaluation.measures = ("f1", "soft_batch")
    return experiment
