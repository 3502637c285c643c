"""Body parts of DensePose-COCO: the eight training records of document 004 (NoonBody, 2021).

Networks and encoders of segmentation-models-pytorch (extra `smp`) from ImageNet weights. Sizes,
batches, epochs, optimizers, rates, patience, factor and the absence of mirroring are the table's.
Inferred: 384,512 is width, height. Unknown, and chosen here: cross-entropy as the loss; weight
decay (torch's defaults); "Resize, CenterCrop" as the short side resized to 512, then the middle;
what the plateau watches (the training loss, once per epoch); the cosines' period (5 epochs), floor
(0) and, after a plateau, start (the base rate); that images are scored whole, with the short side
of training; the split; how the document computed its mean IoU. The training images are the 26437 of
DensePose's train2014, so an epoch is 26437 // batch size steps. Scores are of its minival, not of
the challenge's photographs, which are not public: the document's figures, given with each preset,
were measured on other images.
"""

from dataclasses import replace

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.models.smp import SmpConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.plateau import PlateauConfig
from uda.optim.schedules import CosineRestartsConfig

_TRAINING_IMAGES = 26437
_COSINE_EPOCHS = 5


def noonbody_unet_mobilenet_v2() -> Experiment:
    """NoonBody 384x512, U-Net, MobileNetV2, AdamW, cosine restarts (004: 0.4348)."""
    return _cosines("mobilenet_v2", epochs=15)


def noonbody_unet_mobilenetv3_large_100() -> Experiment:
    """NoonBody 768x1024, U-Net, MobileNetV3 large, AdamW, cosine restarts (004: 0.4968)."""
    experiment = _cosines("timm-mobilenetv3_large_100", epochs=15, batch_size=4)
    experiment.data.source = _resized(1024)
    experiment.data.crop = (1024, 768)
    experiment.evaluation.input_size = _box(1024)
    return experiment


def noonbody_unet_efficientnet_lite4() -> Experiment:
    """NoonBody 384x512, U-Net, EfficientNet-Lite4, AdamW, cosine restarts (004: 0.5347)."""
    return _cosines("timm-tf_efficientnet_lite4", epochs=15)


def noonbody_unet_timm_efficientnet_b3() -> Experiment:
    """NoonBody 384x512, U-Net, EfficientNet-B3 of timm, RAdam, plateau (004: 0.6226)."""
    return _plateau("timm-efficientnet-b3", epochs=25)


def noonbody_unet_timm_efficientnet_b3_cosine() -> Experiment:
    """NoonBody 384x512, U-Net, EfficientNet-B3 of timm, RAdam, plateau, cosines (004: 0.6285)."""
    experiment = noonbody_unet_timm_efficientnet_b3()
    epoch = _steps(epochs=1, batch_size=8)
    experiment.train.cosine_restarts = CosineRestartsConfig(
        period=_COSINE_EPOCHS * epoch, from_step=10 * epoch
    )
    return experiment


def noonbody_unet_efficientnet_b3() -> Experiment:
    """NoonBody 384x512, U-Net, EfficientNet-B3, RAdam, plateau (004: 0.6408)."""
    return _plateau("efficientnet-b3", epochs=40)


def noonbody_deeplabv3_resnet34() -> Experiment:
    """NoonBody 384x512, DeepLabV3, ResNet-34, RAdam, plateau (004: 0.6461)."""
    experiment = _plateau("resnet34", epochs=50, batch_size=16)
    experiment.model = SmpConfig(backbone="resnet34", architecture="deeplabv3", dropout=0.5)
    experiment.train.optimizer.lr = 1e-2
    return experiment


def noonbody_unet_vgg16_bn() -> Experiment:
    """NoonBody 384x512, U-Net, VGG-16 with batch norm, RAdam, plateau (004: 0.6653)."""
    return _plateau("vgg16_bn", epochs=40)


def _cosines(backbone: str, *, epochs: int, batch_size: int = 8) -> Experiment:
    experiment = _supervised(backbone, epochs=epochs, batch_size=batch_size)
    experiment.train.optimizer = OptimizerConfig(name="adamw", lr=1e-2, weight_decay=0.01)
    experiment.train.cosine_restarts = CosineRestartsConfig(
        period=_steps(epochs=_COSINE_EPOCHS, batch_size=batch_size)
    )
    return experiment


def _plateau(backbone: str, *, epochs: int, batch_size: int = 8) -> Experiment:
    experiment = _supervised(backbone, epochs=epochs, batch_size=batch_size)
    assert experiment.data.source is not None
    experiment.data.source = replace(experiment.data.source, policy="clahe_brightness_contrast")
    experiment.train.optimizer = OptimizerConfig(name="radam", lr=1e-3)
    experiment.train.plateau = PlateauConfig(watches="loss", patience=3, factor=0.5)
    return experiment


def _supervised(backbone: str, *, epochs: int, batch_size: int) -> Experiment:
    epoch = _steps(epochs=1, batch_size=batch_size)
    return Experiment(
        data=DataConfig(source=_resized(512), crop=(512, 384)),
        model=SmpConfig(backbone=backbone, dropout=0.0),
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.0)},
        train=TrainConfig(
            steps=epochs * epoch,
            batch_size=batch_size,
            head_lr_factor=1.0,
            snapshot_every=epoch,
        ),
        evaluation=EvaluationConfig(
            dataset="noonbody",
            input_size=_box(512),
            keep_ratio=True,
            every=epoch,
            measures=("per_image_union_miou",),
        ),
    )


def _resized(short_side: int) -> DomainConfig:
    """NoonBody with the short side of every image resized; the crop is the middle."""
    return DomainConfig(
        datasets=("noonbody",),
        size=_box(short_side),
        keep_ratio=True,
        center_crop=True,
    )


def _box(short_side: int) -> tuple[int, int]:
    """A box that an image with this short side fits into, whatever its long side."""
    return short_side, 8 * short_side


def _steps(*, epochs: int, batch_size: int) -> int:
    return epochs * (_TRAINING_IMAGES // batch_size)
