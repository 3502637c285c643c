"""Data of one's own: a small network with ImageNet weights, for one GPU of 8 GB or a patient CPU.

The data sets are placeholders: name yours with --set data.source.datasets=renders.toml
--set data.target.datasets=./photographs (a folder) --set evaluation.dataset=labeled.toml or, where
no photograph has labels, --set evaluation=none. docs/own_data.md says how to describe them. Not
tuned for any data set; images keep their shape and are scored at the scale they are trained at.
"""

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig

_BOX = (512, 1024)  # images are made as large as fits into it, upright or lying


def own_source_only() -> Experiment:
    """Labeled images alone, DeepLabV3+ on a ResNet-18 with ImageNet weights, 10,000 steps."""
    return Experiment(
        data=DataConfig(
            source=DomainConfig(
                datasets=("gta5",), size=_BOX, keep_ratio=True, scale=(0.75, 1.5), mirror=True
            ),
            crop=(384, 512),
        ),
        model=DeepLabV3PlusConfig(backbone="resnet18", backbone_weights="imagenet"),
        objectives={"supervised": SupervisedConfig()},
        train=TrainConfig(
            steps=10_000,
            batch_size=4,
            optimizer=OptimizerConfig(name="adamw", lr=1e-4, weight_decay=0.01),
            warmup_steps=500,
        ),
        evaluation=EvaluationConfig(
            dataset="cityscapes", input_size=_BOX, keep_ratio=True, every=2000
        ),
    )


def own_class_mix() -> Experiment:
    """The same with unlabeled images of a target, on which class mix pastes labeled objects."""
    experiment = own_source_only()
    experiment.data.target = DomainConfig(
        datasets=("cityscapes",), size=_BOX, keep_ratio=True, mirror=True
    )
    experiment.objectives["class_mix"] = ClassMixConfig(threshold=0.968, start_step=1000)
    experiment.teacher = TeacherConfig(momentum=0.999)
    return experiment
