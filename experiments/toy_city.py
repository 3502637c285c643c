"""The same on the toy city: minutes on a CPU.

`on_toy_city` changes the data (whole images, four per batch, mirrored in both domains), the
network (small, randomly initialized, batch norm throughout), the length and the optimizer: in 500
steps of the log's SGD such a network learns nothing. Objectives change only where a preset below
says so: a randomly initialized network, unlike one with ImageNet weights, first has to learn the
source, so whatever uses its predictions starts at step 150.
"""

from uda.augmentation.jitter import JitterConfig
from uda.data.config import DomainConfig, SecondViewConfig
from uda.experiment import Experiment
from uda.experiments import gta5_cityscapes, methods
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.cross_view import CrossViewConfig
from uda.objectives.cut_mix import CutMixConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.objectives.teacher_labels import TeacherLabelsConfig
from uda.optim.optimizers import OptimizerConfig
from uda.optim.teacher import TeacherConfig

TOY_ROOT = "data/toy_city"
TOY_SIZE = (128, 256)  # pixels (height, width): crops are whole images
_START = 150  # step
_ANY = DomainConfig(datasets=())


def toy_source_only() -> Experiment:
    """Toy city, GTA5 stand-in alone: the baseline of every adaptation."""
    return on_toy_city(gta5_cityscapes.gc_640x360_b2_source_only())


def toy_agc_source_only() -> Experiment:
    """Toy city, GTA5 and CycleGTA5 stand-ins mixed image by image."""
    return on_toy_city(methods.agc_640x360_b2_source_only())


def toy_aagc_source_only() -> Experiment:
    """Toy city, CycleGTA5 stand-in alone."""
    return on_toy_city(gta5_cityscapes.aagc_640x360_b2_source_only())


def toy_adversarial() -> Experiment:
    """Toy city, AdaptSegNet on one level."""
    experiment = on_toy_city(methods.gc_640x360_b2_adversarial())
    experiment.objectives["adversarial"].start_step = _START
    return experiment


def toy_adversarial_multi() -> Experiment:
    """Toy city, AdaptSegNet on two levels."""
    experiment = on_toy_city(methods.gc_640x360_b2_adversarial_multi())
    experiment.objectives["adversarial"].start_step = _START
    return experiment


def toy_memory() -> Experiment:
    """Toy city, memory regularization."""
    experiment = on_toy_city(methods.gc_640x360_b2_memory())
    experiment.objectives["memory"].start_step = _START
    return experiment


def toy_entropy() -> Experiment:
    """Toy city, entropy minimization."""
    experiment = on_toy_city(methods.gc_640x360_b2_entropy())
    experiment.objectives["entropy"].start_step = _START
    return experiment


def toy_target_shown() -> Experiment:
    """Toy city, control: target images pass through the student, and nothing is learned from them.

    Its batch norm sees them, though: no objective deserves what this gains over toy_source_only.
    """
    experiment = toy_entropy()
    experiment.objectives["entropy"].weight = 1e-12
    return experiment


def toy_class_mix() -> Experiment:
    """Toy city, class mix under a mean teacher (the demo's adapted network)."""
    experiment = on_toy_city(methods.gc_640x360_b2_class_mix())
    experiment.objectives["class_mix"].start_step = _START
    return experiment


def toy_class_mix_student() -> Experiment:
    """Toy city, student on the pseudo-labels of toy_class_mix (the demo's student)."""
    experiment = on_toy_city(methods.gc_640x360_b2_class_mix_student())
    experiment.train.steps = 300  # the network is trained already
    experiment.data.pseudo_labels = "snapshots/toy_class_mix/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/toy_class_mix/GTA5_500.pth"
    return experiment


def toy_cut_mix() -> Experiment:
    """Toy city, CutMix under a mean teacher."""
    experiment = on_toy_city(methods.gc_640x360_b2_cut_mix())
    experiment.objectives["cut_mix"].start_step = _START
    return experiment


def toy_cut_mix_ground_truth() -> Experiment:
    """Toy city, the log's mistake C2: the boxes of CutMix bring the target's own labels."""
    experiment = toy_cut_mix()
    experiment.data.target_ground_truth = True
    experiment.objectives["cut_mix"] = CutMixConfig(labels="ground_truth", start_step=_START)
    experiment.teacher = None
    return experiment


def toy_fix_match() -> Experiment:
    """Toy city, FixMatch under a mean teacher."""
    experiment = on_toy_city(methods.gc_640x360_b2_fix_match())
    experiment.objectives["fix_match"].start_step = _START
    return experiment


def toy_cross_view() -> Experiment:
    """Toy city, the log's mistake C3: two target views, not aligned, are pulled together."""
    experiment = toy_fix_match()
    del experiment.objectives["fix_match"]
    experiment.data.second_target_view = SecondViewConfig(policy="autoaugment_log")
    experiment.objectives["cross_view"] = CrossViewConfig(weight=0.1, start_step=_START)
    experiment.teacher = TeacherConfig(momentum=0.0)
    return experiment


def toy_pseudo_label() -> Experiment:
    """Toy city, student on the pseudo-labels of toy_source_only."""
    experiment = toy_class_mix_student()
    experiment.data.pseudo_labels = "snapshots/toy_source_only/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/toy_source_only/GTA5_500.pth"
    return experiment


def toy_pseudo_label_mapped_twice() -> Experiment:
    """Toy city, the log's mistake C4: nothing to learn from but pseudo-labels mapped twice."""
    experiment = toy_class_mix_student()
    experiment.data.source = None
    experiment.data.pseudo_labels_mapped_twice = True
    experiment.objectives = {"pseudo_label": PseudoLabelConfig(jitter=JitterConfig())}
    return experiment


def toy_aagc() -> Experiment:
    """Toy city, CycleGTA5 stand-in: adversarial on two levels, memory regularization."""
    return on_toy_city(gta5_cityscapes.aagc_640x360_b2())


def toy_aagc_student() -> Experiment:
    """Toy city, CycleGTA5 stand-in: the student on pseudo-labels."""
    experiment = on_toy_city(gta5_cityscapes.aagc_640x360_b2_student())
    assert experiment.data.target is not None
    experiment.data.target.splits = ("train",)
    experiment.data.pseudo_labels = "snapshots/toy_aagc/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/toy_aagc/GTA5_500.pth"
    return experiment


def toy_rectified() -> Experiment:
    """Toy city, the pseudo-labels of toy_aagc weighed by the variance between two heads."""
    experiment = on_toy_city(methods.aagc_640x360_b2_rectified())
    experiment.data.pseudo_labels = "snapshots/toy_aagc/pseudo_labels"
    experiment.train.initial_snapshot = "snapshots/toy_aagc/GTA5_500.pth"
    return experiment


def toy_oracle() -> Experiment:
    """Toy city, supervised by the labels of its Cityscapes stand-in."""
    experiment = on_toy_city(gta5_cityscapes.cityscapes_seg())
    # The loss of toy_source_only, so that the two differ in their images and labels alone.
    experiment.objectives["supervised"] = SupervisedConfig()
    return experiment


def on_toy_city(experiment: Experiment) -> Experiment:
    """`experiment` with the toy city's data, a small network, and 500 steps."""
    steps_before = experiment.train.steps
    experiment.data.root = TOY_ROOT
    experiment.data.crop = TOY_SIZE
    experiment.data.workers = 0  # decoding an image takes a millisecond
    for domain in (experiment.data.source, experiment.data.target):
        if domain is not None:
            domain.size = TOY_SIZE
            domain.scale = (1.0, 1.0)
            domain.mirror = True
            domain.crop, domain.keep_ratio, domain.interpolation = None, False, "bicubic"
            domain.crop_label_values, domain.crop_max_share = 0, 1.0
            domain.crop_share_rule, domain.crop_tries = _ANY.crop_share_rule, _ANY.crop_tries
            if domain.ignored_borders is not None:
                domain.ignored_borders = (4, 30, 4, 4)  # 30, 240, 30, 30 of 1024x2048
    if experiment.data.rare_classes is not None:
        # 3000 of 1052x1914 pixels; crops are whole images.
        experiment.data.rare_classes.min_pixels = 50
        experiment.data.rare_classes.min_crop_pixels = 0
    experiment.model = DeepLabV3PlusConfig(
        backbone="resnet18",
        backbone_weights="none",
        backbone_width=24,
        head_norm="batch",
        aspp_rates=(1, 2, 4),
        aspp_channels=64,
        low_level_channels=24,
        decoder_channels=64,
        auxiliary_head=any("auxiliary_head" in o.needs() for o in experiment.objectives.values()),
    )
    experiment.train.steps = 500
    experiment.train.batch_size = 4
    experiment.train.optimizer = OptimizerConfig(name="adamw", lr=3e-3, weight_decay=1e-2)
    experiment.train.head_lr_factor = experiment.train.backbone_lr_factor = 1.0
    experiment.train.precision = "bfloat16"
    experiment.train.schedule_steps = None
    experiment.train.decay_norms, experiment.train.undecayed = True, "norms"
    experiment.train.power = 0.9
    experiment.train.warmup_steps = 50
    experiment.train.warmup, experiment.train.warmup_start = "towards_1", 0.1
    if experiment.data.target is not None:
        experiment.train.unlabeled_images = 40
    experiment.train.snapshot_every = 500
    experiment.train.resume_every = 100
    experiment.evaluation.every = 250
    experiment.evaluation.follow("native")
    for objective in experiment.objectives.values():
        objective.start_step = objective.start_step * experiment.train.steps // steps_before
        if isinstance(objective, TeacherLabelsConfig):
            top, bottom = objective.ignored_rows
            objective.ignored_rows = (top // 4, bottom // 4)  # of 128 rows, not 512
    if experiment.teacher is not None:
        experiment.teacher.momentum = min(experiment.teacher.momentum, 0.99)
    return experiment
