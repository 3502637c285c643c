"""People clothing, 59 classes: mmsegmentation's DeepLabV3+ on ResNet-50 at output stride 8.

Two reports trained it (documents 000 and 001); what they say of their runs is set here, and so are
the figures of the configuration that they name, `deeplabv3plus_r50-d8_4xb8-160k_..._512x512`.
- Inferred: 4 x 8 images per step, from that name; the pipeline (ADE20K's template, which 000's
  zero reduction belongs to); for 001 all of it, as it says no more than its network and its split.
- Unknown: the seed of 001's 800 and 200 images, and so which they are; how 000 split its 1000.
- 001's run stopped after 16,000 of its 160,000 steps, out of budget.
- mIoU, mAcc: 12.15, 17.84 (001); 13.32, 19.67 (000, over 59 names of 58 classes, shifted by one;
  13.55, 20.01 over the classes that it had).
- Not as there: the trunk is torchvision's ResNet-50 with its ImageNet weights, while ResNetV1c has
  a stem of three 3x3 convolutions, for which torchvision has no weights; our pyramid is projected
  by a 1x1 convolution, with dropout there, theirs by a 3x3 one, with dropout before the classifier;
  images are resized by bicubic interpolation, theirs by bilinear.
"""

from uda.config import Experiment, TrainConfig
from uda.data.config import DataConfig, DomainConfig
from uda.evaluation import EvaluationConfig
from uda.models import DeepLabV3PlusConfig
from uda.objectives import SupervisedConfig
from uda.optimizers import OptimizerConfig


def clothes59_deeplabv3plus_r50() -> Experiment:
    """Document 001: background and 58 classes of clothes, trained on 800 images, scored on 200."""
    return _deeplabv3plus_r50("clothes59")


def clothes58_deeplabv3plus_r50() -> Experiment:
    """Document 000 as it was meant: background is ignored, and each name is at its own class."""
    return _deeplabv3plus_r50("clothes58")


def _deeplabv3plus_r50(dataset: str) -> Experiment:
    experiment = Experiment(
        data=DataConfig(
            source=DomainConfig(
                datasets=(dataset,),
                size=(512, 2048),
                scale=(0.5, 2.0),
                keep_ratio=True,
                mirror=True,
                policy="photometric_distortion",
                crop_max_share=0.75,
            ),
            crop=(512, 512),
        ),
        model=DeepLabV3PlusConfig(
            backbone="resnet50",
            output_stride=8,
            head_norm="batch",
            separable=True,
            aspp_channels=512,
            decoder_channels=512,
            low_level_channels=48,
            dropout=0.1,
        ),
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.4)},
        train=TrainConfig(
            steps=160_000,
            batch_size=32,
            precision="float32",
            optimizer=OptimizerConfig(lr=0.01, momentum=0.9, weight_decay=5e-4),
            head_lr_factor=1.0,
            power=0.9,
            final_lr_factor=0.01,
            snapshot_every=16_000,
        ),
        evaluation=EvaluationConfig.following("mmsegmentation", dataset=dataset),
    )
    experiment.evaluation.every = 16_000
    return experiment
