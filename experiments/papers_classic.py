"""Papers on DeepLab-v2, GTA5 to Cityscapes: AdaptSegNet, MinEnt, AdvEnt, FDA, as released.

Sizes, losses, schedules and initial weights are those of the released code; what differs from it is
in docs/methods.md, a table per method. Every network starts from a file of its authors, below
weights/.
"""

from dataclasses import replace

from uda.data.config import DataConfig, DomainConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.experiments.parts import cityscapes, deeplab_v2
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.entropy import EntropyConfig
from uda.objectives.fourier import FourierConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig

# ADVENT's file and FDA's: ImageNet without COCO, unlike AdaptSegNet's.
IMAGENET_WEIGHTS = "weights/DeepLab_resnet_pretrained_imagenet.pth"
_BANDS_OF_FDA = "snapshots/fda_gta5/pseudo_labels"  # of the mean of the three networks


def adaptsegnet_gta5() -> Experiment:
    """AdaptSegNet on two levels, one discriminator for the probabilities of each head."""
    experiment = _whole_images()
    experiment.objectives["adversarial"] = AdversarialConfig(
        main_weight=0.001, auxiliary_weight=0.0002
    )
    # Its optimizer lists every weight of the backbone three times, and so moves it three times.
    experiment.train.backbone_lr_factor = 3.0
    experiment.train.steps = 150_000
    return experiment


def minent_gta5() -> Experiment:
    """MinEnt: the entropy of both heads on target images is minimized."""
    experiment = _advent()
    experiment.objectives["entropy"] = EntropyConfig(
        weight=0.001, unit="share", auxiliary_weight=0.2
    )
    return experiment


def advent_gta5() -> Experiment:
    """AdvEnt: AdaptSegNet on maps of self-information, which tell how uncertain a network is."""
    experiment = _advent()
    experiment.objectives["adversarial"] = AdversarialConfig(
        main_weight=0.001, auxiliary_weight=0.0002, input="self_information"
    )
    return experiment


def fda_gta5() -> Experiment:
    """FDA with the band 0.01: source images with low-frequency amplitudes of target images."""
    experiment = _whole_images()
    experiment.data.source = _gta5(crop=None)  # random crops of the target's size
    experiment.model = replace(
        deeplab_v2(levels=1), aspp_branches=4, backbone_weights=IMAGENET_WEIGHTS
    )
    experiment.objectives = {
        "fourier": FourierConfig(band=0.01, auxiliary_weight=0.0),
        "entropy": EntropyConfig(
            weight=0.005, unit="share", charbonnier=2.0, resolution="features", start_step=1
        ),
    }
    experiment.train.steps, experiment.train.schedule_steps = 100_000, 150_000
    experiment.evaluation.follow("fda")
    return experiment


def fda_gta5_005() -> Experiment:
    """FDA with the band 0.05, the second of the three whose mean is evaluated."""
    return _with_band(fda_gta5(), 0.05)


def fda_gta5_009() -> Experiment:
    """FDA with the band 0.09, the third of them."""
    return _with_band(fda_gta5(), 0.09)


def fda_gta5_selftrain() -> Experiment:
    """FDA's next round, band 0.01: also learns the labels that the mean of three networks gives."""
    experiment = fda_gta5()
    experiment.data.pseudo_labels = _BANDS_OF_FDA
    experiment.objectives["pseudo_label"] = PseudoLabelConfig(auxiliary_weight=0.0)
    experiment.objectives["entropy"].start_step = 0
    return experiment


def fda_gta5_selftrain_005() -> Experiment:
    """The same with the band 0.05."""
    return _with_band(fda_gta5_selftrain(), 0.05)


def fda_gta5_selftrain_009() -> Experiment:
    """The same with the band 0.09."""
    return _with_band(fda_gta5_selftrain(), 0.09)


def _whole_images() -> Experiment:
    """AdaptSegNet without its adversarial part: one whole image of each domain per step."""
    return Experiment(
        data=DataConfig(source=_gta5(crop=(720, 1280)), target=cityscapes(), crop=(512, 1024)),
        model=deeplab_v2(levels=2),
        objectives={"supervised": SupervisedConfig(auxiliary_weight=0.1)},
        train=TrainConfig(
            steps=120_000,
            batch_size=1,
            precision="float32",
            optimizer=OptimizerConfig(name="sgd", lr=2.5e-4, momentum=0.9, weight_decay=5e-4),
            schedule_steps=250_000,
        ),
        evaluation=EvaluationConfig.following("adaptsegnet", dataset="cityscapes"),
    )


def _advent() -> Experiment:
    """What MinEnt and AdvEnt share: four branches in each head, snapshots every 2000 steps."""
    experiment = _whole_images()
    experiment.model = replace(
        deeplab_v2(levels=2), aspp_branches=4, backbone_weights=IMAGENET_WEIGHTS
    )
    experiment.train.snapshot_every = experiment.evaluation.every = 2000
    return experiment


def _gta5(*, crop: tuple[int, int] | None) -> DomainConfig:
    return DomainConfig(datasets=("gta5",), size=(720, 1280), crop=crop)


def _with_band(experiment: Experiment, band: float) -> Experiment:
    fourier = experiment.objectives["fourier"]
    assert isinstance(fourier, FourierConfig)
    fourier.band = band
    return experiment
