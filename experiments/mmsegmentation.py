"""mmsegmentation's recipe, which presets of several data sets share."""

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.models.encoders.resnet import BackboneName
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig

_CROP = (512, 512)  # pixels (height, width)


def distorted(dataset: str, *, box: tuple[int, int]) -> DataConfig:
    """Images as large as fits into `box` (height, width) times 0.5 to 2, crops of which no class
    has more than three quarters, photometric distortion."""
    domain = DomainConfig(
        datasets=(dataset,),
        size=box,
        scale=(0.5, 2.0),
        keep_ratio=True,
        mirror=True,
        policy="photometric_distortion",
        crop_max_share=0.75,
    )
    return DataConfig(source=domain, crop=_CROP)


def deeplabv3plus(data: DataConfig, *, backbone: BackboneName, protocol: str) -> Experiment:
    """DeepLabV3+ at output stride 8 with an auxiliary head, SGD, 0.01 down to 1e-4; scored on the
    source's data set by `protocol`. Steps and batch are those of its 160k schedule on four GPUs."""
    assert data.source is not None
    (dataset,) = data.source.datasets
    return Experiment(
        data=data,
        model=DeepLabV3PlusConfig(
            backbone=backbone,
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
            optimizer=OptimizerConfig(name="sgd", lr=0.01, momentum=0.9, weight_decay=5e-4),
            head_lr_factor=1.0,
            power=0.9,
            final_lr_factor=0.01,
        ),
        evaluation=EvaluationConfig.following(protocol, dataset=dataset),
    )
