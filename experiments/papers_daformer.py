"""DACS, DAFormer, HRDA and MIC from GTA5 to Cityscapes, as their authors ran them.

Networks start from files of the user: mit_b5.pth of SegFormer's authors, AdaptSegNet's ResNet-101.
Where papers and code differ, this is the code: docs/methods.md lists what, and the switches.
"""

from dataclasses import replace

from uda.augmentation.color_jitter import ColorJitterConfig
from uda.data.config import DataConfig, DomainConfig, RareClassConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.experiments.parts import deeplab_v2
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.feature_distance import CITYSCAPES_THINGS, FeatureDistanceConfig
from uda.objectives.masked_image import MaskedImageConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig

MIT_B5 = "weights/mit_b5.pth"  # ImageNet weights of SegFormer's authors
_HOOD = (15, 120)  # rows of a crop of 512: the sky and the car's own hood


def dacs_gta5() -> Experiment:
    """DACS: half of the classes of a source image on a target image, under a mean teacher."""
    return Experiment(
        data=DataConfig(
            source=DomainConfig(datasets=("gta5",), size=(720, 1280)),
            target=DomainConfig(datasets=("cityscapes",), size=(512, 1024)),
            crop=(512, 512),
        ),
        model=deeplab_v2(levels=1),
        objectives={
            "supervised": SupervisedConfig(auxiliary_weight=0.0),
            "class_mix": _class_mix(strength=0.25, candidates_of_batch=False),
        },
        teacher=TeacherConfig(momentum=0.99, first_update="copy"),
        train=TrainConfig(
            steps=250_000,
            batch_size=2,
            precision="float32",
            optimizer=OptimizerConfig(name="sgd", lr=2.5e-4, momentum=0.9, weight_decay=5e-4),
            head_lr_factor=10.0,
            power=0.9,
        ),
        evaluation=EvaluationConfig.following("dacs", dataset="cityscapes"),
    )


def daformer_gta5() -> Experiment:
    """DAFormer: MiT-B5, rare class sampling, features near those of ImageNet, and class mix."""
    return daformer(_gta5())


def hrda_gta5() -> Experiment:
    """HRDA: DAFormer on the whole crop at half size and on a detail of it at full size."""
    return hrda(daformer_gta5())


def mic_daformer_gta5() -> Experiment:
    """MIC on DAFormer: the student also learns labels of target images with hidden patches."""
    return mic(daformer_gta5(), block=32)


def mic_hrda_gta5() -> Experiment:
    """MIC on HRDA: masked target images, in context and detail."""
    return mic(hrda_gta5(), block=64)


def mic_deeplabv3plus_gta5() -> Experiment:
    """MIC on the experiment log's network, DeepLabV3+ on ResNet-101, all else as with DAFormer."""
    experiment = mic_daformer_gta5()
    # Without an auxiliary head, as all networks of MIC's authors.
    experiment.model = DeepLabV3PlusConfig(
        backbone="resnet101", batch_norm="frozen_affine", auxiliary_head=False
    )
    # DAFormer's ResNets, whose parameters have no "norm" in their names, decay as a whole.
    experiment.train.decay_norms, experiment.train.undecayed = True, "norms"
    experiment.train.precision = "bfloat16"  # as the log's other presets
    return experiment


def daformer(source: DomainConfig) -> Experiment:
    """DAFormer from a labeled source, already at the size for crops of 512, to Cityscapes."""
    target = replace(resized("cityscapes", box=(512, 1024)), mirror=True)
    return Experiment(
        data=DataConfig(
            source=source,
            target=target,
            crop=(512, 512),
            rare_classes=RareClassConfig(temperature=0.01, min_pixels=3000, min_crop_pixels=1500),
        ),
        model=EncoderDecoderConfig(
            encoder=EncoderConfig(name="mit_b5", weights=MIT_B5),
            decoder=DAFormerConfig(),
            dropout=0.1,
        ),
        objectives={
            "supervised": SupervisedConfig(auxiliary_weight=0.0, over="all"),
            "feature_distance": FeatureDistanceConfig(weight=0.005, classes=CITYSCAPES_THINGS),
            "class_mix": replace(
                _class_mix(strength=0.2, candidates_of_batch=True), ignored_rows=_HOOD
            ),
        },
        teacher=TeacherConfig(momentum=0.999),
        train=TrainConfig(
            steps=40_000,
            batch_size=2,
            precision="float32",
            optimizer=OptimizerConfig(name="adamw", lr=6e-5, weight_decay=0.01),
            head_lr_factor=10.0,
            decay_norms=False,
            undecayed="encoder_norms",
            warmup_steps=1500,
            warmup_start=1e-6,
            warmup="of_decay",
            power=1.0,
        ),
        evaluation=replace(
            EvaluationConfig.following("daformer", dataset="cityscapes"), every=4000
        ),
    )


def hrda(experiment: Experiment) -> Experiment:
    """`experiment`, of `daformer`, with crops of 1024 from images of twice the size."""
    data, model = experiment.data, experiment.model
    assert data.source is not None
    assert data.target is not None
    assert data.rare_classes is not None
    assert isinstance(model, EncoderDecoderConfig)
    data.crop = (1024, 1024)
    for domain in (data.source, data.target):
        domain.size = (2 * domain.size[0], 2 * domain.size[1])
    data.rare_classes.min_crop_pixels = 6000
    # Pixels of the stored image, in place of rows of a crop.
    data.target.ignored_borders = (30, 240, 30, 30)
    for objective in experiment.objectives.values():
        if isinstance(objective, ClassMixConfig):
            objective.ignored_rows = (0, 0)
    model.hrda = HrdaConfig(crop=512)
    before = experiment.evaluation
    protocol = EvaluationConfig.following("hrda", dataset=before.dataset)
    experiment.evaluation = replace(protocol, every=before.every, sets=before.sets)
    return experiment


def mic(experiment: Experiment, *, block: int) -> Experiment:
    """`experiment`, of `daformer` or `hrda`, with masked target images, in blocks of so many
    pixels."""
    mixed = experiment.objectives["class_mix"]
    assert isinstance(mixed, ClassMixConfig)
    experiment.objectives["masked_image"] = MaskedImageConfig(
        block=block, hidden=0.7, ignored_rows=mixed.ignored_rows
    )
    return experiment


def _class_mix(*, strength: float, candidates_of_batch: bool) -> ClassMixConfig:
    """Class mix as it was run: one share of sure pixels, all pixels count, kornia's jitter."""
    return ClassMixConfig(
        threshold=0.968,
        confidence="batch_share",
        candidates="batch_and_void" if candidates_of_batch else "image_and_void",
        over="all",
        jitter=ColorJitterConfig(
            brightness=strength, contrast=strength, saturation=strength, hue=strength
        ),
    )


def _gta5() -> DomainConfig:
    """GTA5 in 1280x704."""
    return labeled("gta5", box=(720, 1280))


def labeled(dataset: str, *, box: tuple[int, int]) -> DomainConfig:
    """A source for `daformer`, in crops of which no class has three quarters."""
    return replace(
        resized(dataset, box=box),
        mirror=True,
        crop_max_share=0.75,
        crop_share_rule="below",
        crop_tries=11,  # ten times again
    )


def resized(dataset: str, *, box: tuple[int, int]) -> DomainConfig:
    """All training images, as large as fits into the box (height, width), as OpenCV resizes."""
    return DomainConfig(
        datasets=(dataset,), size=box, keep_ratio=True, interpolation="bilinear_no_antialias"
    )
