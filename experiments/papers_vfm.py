"""VFM-UDA and VFM-UDA++ from GTA5 to Cityscapes, and UniMatch V2, as their authors ran them.

Networks start from files of DINOv2's authors. Where papers and code differ, this is the code:
docs/methods.md lists what, and the switches.
"""

import math
from dataclasses import replace

from uda.augmentation.color_jitter import ColorJitterConfig
from uda.data.config import DataConfig, DomainConfig, RareClassConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.models.decoders.dpt import DptConfig
from uda.models.decoders.vfm_uda import VfmUdaConfig
from uda.models.decoders.vfm_uda_plusplus import VfmUdaPlusPlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.frozen_distance import FrozenDistanceConfig
from uda.objectives.functional.hard_pixels import OhemConfig
from uda.objectives.masked_image import MaskedImageConfig
from uda.objectives.masked_tokens import MaskedTokensConfig
from uda.objectives.supervised import SupervisedConfig
from uda.objectives.unimatch_v2 import UniMatchV2Config
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig

_BATCH = 8
# Of the image of 1120 pixels, which has 18 blocks of "64" on a side, seen from the crop of 1024.
_BLOCK = 57


def vfm_uda_gta5_s() -> Experiment:
    """VFM-UDA on DINOv2 ViT-S: class mix and hidden tokens under a mean teacher."""
    return vfm_uda(_gta5(), size="s")


def vfm_uda_gta5_b() -> Experiment:
    """VFM-UDA on DINOv2 ViT-B."""
    return vfm_uda(_gta5(), size="b")


def vfm_uda_gta5() -> Experiment:
    """VFM-UDA on DINOv2 ViT-L."""
    return vfm_uda(_gta5(), size="l")


def vfm_uda_plusplus_gta5() -> Experiment:
    """VFM-UDA++ on ViT-L: an adapter, hidden blocks, and features near those of a frozen ViT-L."""
    return vfm_uda_plusplus(_gta5(), size="l", lr=1e-5)


def unimatch_v2_d186() -> Experiment:
    """UniMatch V2 on DINOv2 ViT-B: semi-supervised, 186 images of Cityscapes labeled (1/16)."""
    return unimatch_v2(_resized_at_random("cityscapes", first=186))


def unimatch_v2_gta5() -> Experiment:
    """UniMatch V2 on DINOv2 ViT-B with GTA5 as the labeled images: no target label is seen."""
    return unimatch_v2(_resized_at_random("gta5"))


def vfm_uda(source: DomainConfig, *, size: str) -> Experiment:
    """VFM-UDA from a labeled source to Cityscapes."""
    target = replace(short_side(("cityscapes",), 1024), ignored_borders=(0.03, 0.25, 0.03, 0.03))
    weak = replace(_jitter(32 / 255, 0.5, 0.5, 0.05), probability=0.9)
    strong = replace(_jitter(0.2, 0.2, 0.2, 0.2), blur_probability=0.5, blur_sigma=(0.15, 1.15))
    return Experiment(
        data=DataConfig(
            source=source,
            target=target,
            crop=(1024, 1024),
            rare_classes=RareClassConfig(
                temperature=0.05, min_pixels=3000, min_crop_pixels=6000, tries=20, joint_tries=True
            ),
        ),
        model=EncoderDecoderConfig(
            encoder=_dinov2(f"dinov2_vit{size}14"),
            decoder=VfmUdaConfig(),
            input_scale=1.1,
            dropout=0.0,
        ),
        objectives={
            "supervised": SupervisedConfig(auxiliary_weight=0.0, jitter=weak),
            "class_mix": ClassMixConfig(
                threshold=0.968,
                confidence="batch_share",
                candidates="batch_and_void",
                over="all",
                target_jitter=weak,
                jitter=strong,
            ),
            "masked_tokens": MaskedTokensConfig(hidden=0.7, target_jitter=weak, jitter=strong),
        },
        teacher=TeacherConfig(momentum=0.999, batch_norm="running", mirrored=True),
        train=TrainConfig(
            steps=40_000,
            batch_size=_BATCH,
            # The originals' float16 needs a scaler of losses, bfloat16 does not.
            precision="bfloat16",
            optimizer=OptimizerConfig(name="adamw", lr=5e-5 * math.sqrt(_BATCH), weight_decay=0.01),
            backbone_lr_factor=0.1,
            head_lr_factor=1.0,
            warmup_steps=1500,
            warmup_start=1e-3,
            warmup="up_to_1",
            power=1.0,
        ),
        evaluation=EvaluationConfig.following("vfm_uda", dataset="cityscapes"),
    )


def vfm_uda_plusplus(source: DomainConfig, *, size: str, lr: float) -> Experiment:
    """VFM-UDA++ from a labeled source to Cityscapes; `lr` is that of a batch of one image."""
    experiment = vfm_uda(source, size=size)
    experiment.model = EncoderDecoderConfig(
        encoder=_dinov2(f"dinov2_vit{size}14", adapter=True),
        decoder=VfmUdaPlusPlusConfig(),
        input_scale=1.1,
        dropout=0.0,
    )
    masked = experiment.objectives.pop("masked_tokens")
    supervised = experiment.objectives["supervised"]
    assert isinstance(masked, MaskedTokensConfig)
    assert isinstance(supervised, SupervisedConfig)
    weak = masked.target_jitter
    supervised.jitter = replace(
        _jitter(0.8, 0.8, 0.8, 0.4),
        gray_probability=0.1,
        blur_probability=0.5,
        blur_sigma=(0.15, 3.0),
    )
    rate = lr * math.sqrt(_BATCH)
    experiment.objectives["masked_image"] = MaskedImageConfig(
        block=_BLOCK, hidden=0.7, target_jitter=weak, jitter=masked.jitter
    )
    experiment.objectives["frozen_distance"] = FrozenDistanceConfig(
        weight=0.1,
        encoder="dinov2_vitl14_reg",
        weights="weights/dinov2_vitl14_reg4_pretrain.pth",
        size=(406, 406),
        jitter=weak,
        optimizer=OptimizerConfig(name="adamw", lr=rate, weight_decay=0.01),
    )
    # Its statistics are those of its own batches.
    experiment.teacher = TeacherConfig(momentum=0.999, batch_norm="batch", mirrored=True)
    experiment.train.optimizer.lr = rate
    experiment.train.layer_decay = 0.9
    return experiment


def unimatch_v2(labeled: DomainConfig) -> Experiment:
    """UniMatch V2 from labeled images to all of Cityscapes' training images without labels."""
    return Experiment(
        data=DataConfig(
            source=labeled,
            # Borders of 0: only what is padded does not count.
            target=replace(_resized_at_random("cityscapes"), ignored_borders=(0, 0, 0, 0)),
            crop=(798, 798),
        ),
        model=EncoderDecoderConfig(
            encoder=_dinov2("dinov2_vitb14"),
            decoder=DptConfig(),
            align_corners=True,
            dropout=0.0,
        ),
        # Half of the sum: (labeled + mean of the views) / 2.
        objectives={
            "supervised": SupervisedConfig(weight=0.5, auxiliary_weight=0.0, ohem=_ohem()),
            "unimatch_v2": UniMatchV2Config(weight=0.5),
        },
        teacher=TeacherConfig(momentum=0.996, batch_norm="running", first_update="copy"),
        train=TrainConfig(
            steps=66_780,  # 180 epochs of 2975 images, 371 steps each
            batch_size=_BATCH,
            optimizer=OptimizerConfig(name="adamw", lr=2e-4, weight_decay=0.01),
            backbone_lr_factor=1 / 40,
            head_lr_factor=1.0,
            power=0.9,
        ),
        evaluation=EvaluationConfig(
            dataset="cityscapes",
            window=(798, 798),
            overlap=1 / 3,
            window_average="probabilities",
        ),
    )


def _ohem() -> OhemConfig:
    """At least 200000 pixels of each of four GPUs."""
    return OhemConfig(below=0.7, at_least=4 * 200_000)


def _gta5() -> DomainConfig:
    """GTA5 with a short side of about 1440."""
    return labeled(("gta5",), 1440)


def labeled(datasets: tuple[str, ...], pixels: int) -> DomainConfig:
    """Sources for `vfm_uda`, in crops of which no class has three quarters."""
    return replace(
        short_side(datasets, pixels),
        crop_max_share=0.75,
        crop_share_rule="below",
        crop_tries=20,
    )


def short_side(datasets: tuple[str, ...], pixels: int) -> DomainConfig:
    """All training images with a short side of about so many pixels, as Pillow resizes."""
    return DomainConfig(
        datasets=datasets,
        size=(pixels, 8 * pixels),  # a box that no image's long side reaches
        scale=(0.9, 1.1),
        keep_ratio=True,
        interpolation="bilinear",
        mirror=True,
    )


def _resized_at_random(dataset: str, *, first: int | None = None) -> DomainConfig:
    """Training images, as large as fits into 2048x1024 times 0.5 to 2; small ones are padded."""
    return DomainConfig(
        datasets=(dataset,),
        first=first,
        size=(1024, 2048),
        scale=(0.5, 2.0),
        keep_ratio=True,
        interpolation="bilinear",
        mirror=True,
    )


def _jitter(brightness: float, contrast: float, saturation: float, hue: float) -> ColorJitterConfig:
    """As torchvision means it, each image on its own, with probability 0.8; no blur."""
    return ColorJitterConfig(
        library="torchvision",
        brightness=brightness,
        contrast=contrast,
        saturation=saturation,
        hue=hue,
        blur_probability=0.0,
        per_batch="nothing",
    )


def _dinov2(name: str, *, adapter: bool = False) -> EncoderConfig:
    """From the file of its authors."""
    return EncoderConfig(
        name=f"{name}_adapter" if adapter else name, weights=f"weights/{name}_pretrain.pth"
    )
