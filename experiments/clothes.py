"""People clothing, 59 classes: mmsegmentation's DeepLabV3+ on ResNet-50 at output stride 8.

Two reports trained it (documents 000 and 001). These presets set what the reports say of their runs
and the values of the configuration that they name, `deeplabv3plus_r50-d8_4xb8-160k_..._512x512`.
- Inferred: 4 x 8 images per step, from that name; the pipeline (ADE20K's template, which 000's
  zero reduction belongs to); for 001 all of it, as it says no more than its network and its split.
- Unknown: the seed of 001's 800 and 200 images, and so which they are; how 000 split its 1000.
- 001's run stopped after 16,000 of its 160,000 steps, out of budget.
- mIoU, mAcc: 12.15, 17.84 (001); 13.32, 19.67 (000, over 59 names of 58 classes, shifted by one;
  13.55, 20.01 over the classes that it had).
- Different from theirs: the encoder is torchvision's ResNet-50 with its ImageNet weights, while
  ResNetV1c has a stem of three 3x3 convolutions, for which torchvision has no weights; the pyramid
  is projected by a 1x1 convolution, with dropout there, theirs by a 3x3 one, with dropout before
  the classifier;
  images are resized by bicubic interpolation, theirs by bilinear.
"""

from uda.experiment import Experiment
from uda.experiments.mmsegmentation import deeplabv3plus, distorted


def clothes59_deeplabv3plus_r50() -> Experiment:
    """Document 001: background and 58 classes of clothes, trained on 800 images, scored on 200."""
    return _deeplabv3plus_r50("clothes59")


def clothes58_deeplabv3plus_r50() -> Experiment:
    """Document 000 as it was meant: background is ignored, and each name is at its own class."""
    return _deeplabv3plus_r50("clothes58")


def _deeplabv3plus_r50(dataset: str) -> Experiment:
    data = distorted(dataset, box=(512, 2048))
    experiment = deeplabv3plus(data, backbone="resnet50", protocol="mmsegmentation")
    experiment.train.snapshot_every = experiment.evaluation.every = 16_000
    return experiment
