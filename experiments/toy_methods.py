"""The papers' methods on the toy city, built on one another: minutes on a CPU.

`on_toy_city` (toy_city.py) makes them small. Beyond that, a network from random weights needs these
settings, which are not the papers': objectives other than the source's labels begin at step 150;
the teacher's momentum is 0.99, not 0.999, because a run has 500 steps, not 40000; blocks are a
quarter of those for crops of 512, because images have 128 rows. DAFormer's parts, MIC and HRDA are
added to this library's own class mix (jitter, threshold, share of each image), which learns more in
500 steps than that of DACS's authors (toy_dacs).
"""

from uda.data.config import RareClassConfig
from uda.experiment import Experiment
from uda.experiments import methods, papers_classic, papers_daformer, papers_proda
from uda.experiments.toy_city import on_toy_city, toy_oracle, toy_source_only
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.hrda import HrdaConfig
from uda.models.proda import ProDAConfig
from uda.objectives.class_mix import ClassMixConfig
from uda.objectives.distillation import DistillationConfig
from uda.objectives.masked_image import MaskedImageConfig
from uda.objectives.proda import ProDADenoiseConfig
from uda.objectives.supervised import SupervisedConfig

_START = 150  # step
_SOURCE_ONLY = "snapshots/toy_source_only/GTA5_500.pth"  # in the place of ImageNet's weights


def toy_minent() -> Experiment:
    """Toy city, MinEnt: the entropy of both heads, as in its paper."""
    return _later(on_toy_city(papers_classic.minent_gta5()))


def toy_advent() -> Experiment:
    """Toy city, AdvEnt: discriminators on maps of self-information, two levels."""
    return _later(on_toy_city(papers_classic.advent_gta5()))


def toy_fda() -> Experiment:
    """Toy city, FDA with the band 0.01."""
    return _later(on_toy_city(papers_classic.fda_gta5()))


def toy_fda_005() -> Experiment:
    """Toy city, FDA with the band 0.05."""
    return _later(on_toy_city(papers_classic.fda_gta5_005()))


def toy_fda_009() -> Experiment:
    """Toy city, FDA with the band 0.09."""
    return _later(on_toy_city(papers_classic.fda_gta5_009()))


def toy_fda_selftrain() -> Experiment:
    """Toy city, FDA's next round, band 0.01: also learns the labels of the mean of three bands."""
    experiment = on_toy_city(papers_classic.fda_gta5_selftrain())
    experiment.data.pseudo_labels = "snapshots/toy_fda/pseudo_labels"
    return _later(experiment)


def toy_proda_warmup() -> Experiment:
    """Toy city, ProDA's stage 0: a least-squares discriminator on one level."""
    experiment = _later(on_toy_city(papers_proda.proda_gta5_warmup()))
    experiment.model = _proda_network(input_norm=False)
    return experiment


def toy_proda_denoise() -> Experiment:
    """Toy city, ProDA's stage 1: the warm-up's labels, corrected online by class prototypes."""
    experiment = on_toy_city(papers_proda.proda_gta5_denoise())
    experiment.model = _proda_network(input_norm=False)
    experiment.train.initial_snapshot = "snapshots/toy_proda_warmup/GTA5_500.pth"
    proda = experiment.objectives["proda"]
    assert isinstance(proda, ProDADenoiseConfig)
    proda.prototype_batches = 100  # every image of the training split once
    proda.momentum = 0.99  # as the teacher's
    return experiment


def toy_proda_distill() -> Experiment:
    """Toy city, ProDA's stage 2: a new student learns the labels and probabilities of stage 1."""
    return _distilled(papers_proda.proda_gta5_distill(), of="toy_proda_denoise")


def toy_proda_distill_again() -> Experiment:
    """Toy city, ProDA's stage 3: the student of stage 2 learns its own labels and probabilities."""
    experiment = _distilled(papers_proda.proda_gta5_distill_again(), of="toy_proda_distill")
    experiment.train.initial_snapshot = "snapshots/toy_proda_distill/GTA5_500.pth"
    return experiment


def toy_dacs() -> Experiment:
    """Toy city, DACS as its authors ran it: their jitter, threshold and share of the batch."""
    return _later(on_toy_city(papers_daformer.dacs_gta5()))


def toy_class_balanced() -> Experiment:
    """Toy city, class mix whose teacher's labels count by class-balanced thresholds (CBST)."""
    experiment = _class_mix()
    _mixed(experiment).confidence = "class_balanced"
    _mixed(experiment).portion = 0.5
    return experiment


def toy_instance_adaptive() -> Experiment:
    """Toy city, class mix whose teacher's labels count by moving thresholds (IAST)."""
    experiment = _class_mix()
    _mixed(experiment).confidence = "instance_adaptive"
    return experiment


def toy_rare_classes() -> Experiment:
    """Toy city, class mix and DAFormer's rare class sampling of the source."""
    experiment = _class_mix()
    # 50 pixels: 3000 of an image of GTA5; crops are whole images.
    experiment.data.rare_classes = RareClassConfig(min_pixels=50, min_crop_pixels=0)
    return experiment


def toy_daformer() -> Experiment:
    """Toy city, DAFormer: toy_rare_classes with the feature distance, from toy_source_only's
    weights, which stand in for ImageNet's."""
    experiment = toy_rare_classes()
    distance = papers_daformer.daformer_gta5().objectives["feature_distance"]
    experiment.objectives["feature_distance"] = distance
    for objective in experiment.objectives.values():
        objective.start_step = 0
    experiment.train.initial_snapshot = _SOURCE_ONLY
    return experiment


def toy_mic() -> Experiment:
    """Toy city, MIC: class mix, rare class sampling and masked images."""
    experiment = toy_rare_classes()
    mixed = _mixed(experiment)
    experiment.objectives["masked_image"] = MaskedImageConfig(
        block=8, threshold=mixed.threshold, confidence=mixed.confidence, start_step=_START
    )
    return experiment


def toy_hrda() -> Experiment:
    """Toy city, HRDA: toy_rare_classes on the image at half size and on a detail of it."""
    return _with_details(toy_rare_classes())


def toy_mic_hrda() -> Experiment:
    """Toy city, MIC on HRDA."""
    return _with_details(toy_mic())


def toy_aagc_class_mix() -> Experiment:
    """Toy city, CycleGTA5 stand-in: class mix for 1000 steps."""
    return _long(_class_mix())


def toy_aagc_rare_classes() -> Experiment:
    """Toy city, CycleGTA5 stand-in: class mix and rare classes for 1000 steps."""
    return _long(toy_rare_classes())


def toy_mit_source_only() -> Experiment:
    """Toy city, GTA5 stand-in alone: MiT-B0 from noise under a small DAFormer head."""
    return _on_mit(toy_source_only())


def toy_mit_mic() -> Experiment:
    """Toy city, MIC on MiT-B0 from noise: class mix, rare classes and masked images."""
    return _on_mit(toy_mic())


def toy_oracle_long() -> Experiment:
    """Toy city, supervised by the labels of its Cityscapes stand-in for 1000 steps."""
    experiment = toy_oracle()
    experiment.train.steps = experiment.train.snapshot_every = 1000
    return experiment


def _class_mix() -> Experiment:
    return _later(on_toy_city(methods.gc_640x360_b2_class_mix()))


def _long(experiment: Experiment) -> Experiment:
    """CycleGTA5's stand-in, and twice the steps."""
    assert experiment.data.source is not None
    experiment.data.source.datasets = ("cyclegta5",)
    experiment.train.steps = experiment.train.snapshot_every = 1000
    return experiment


def _on_mit(experiment: Experiment) -> Experiment:
    """MiT-B0 for the small ResNet; attention from noise wants smaller steps."""
    encoder = EncoderConfig(name="mit_b0", weights="none")
    experiment.model = EncoderDecoderConfig(encoder=encoder, decoder=DAFormerConfig(channels=32))
    supervised = experiment.objectives["supervised"]
    assert isinstance(supervised, SupervisedConfig)
    supervised.auxiliary_weight = 0.0  # it has one head
    experiment.train.optimizer.lr = 1e-3
    experiment.train.precision = "float32"  # on a CPU the faster one for it
    return experiment


def _with_details(experiment: Experiment) -> Experiment:
    model = experiment.model.composed()
    assert isinstance(model, EncoderDecoderConfig)
    attention = DAFormerConfig(fusion="conv1", channels=64)
    model.hrda = HrdaConfig(crop=64, attention=attention)
    experiment.model = model
    return experiment


def _distilled(experiment: Experiment, *, of: str) -> Experiment:
    """On the labels and the network of the toy preset `of`."""
    experiment = on_toy_city(experiment)
    experiment.model = _proda_network()
    experiment.data.pseudo_labels = f"snapshots/{of}/pseudo_labels"
    distillation = experiment.objectives["distillation"]
    assert isinstance(distillation, DistillationConfig)
    distillation.network = f"snapshots/{of}/GTA5_500.pth"
    return experiment


def _proda_network(*, input_norm: bool = True) -> ProDAConfig:
    return ProDAConfig(
        backbone="resnet18", backbone_width=24, backbone_weights="none", input_norm=input_norm
    )


def _later(experiment: Experiment) -> Experiment:
    """What uses the network's predictions of the target begins when it has learned the source."""
    for objective in experiment.objectives.values():
        if not objective.learns_fixed_labels():
            objective.start_step = _START
    return experiment


def _mixed(experiment: Experiment) -> ClassMixConfig:
    config = experiment.objectives["class_mix"]
    assert isinstance(config, ClassMixConfig)
    return config
