"""The experiment log's runs as they were run, quirk by quirk, with the numbers in published.json.

`logged_<name>` repeats what was run under <name> in the log; <name> alone is what was meant. The
runs with one level are in logged_single.py. Quirks are fields: see DeepLabV2Config, and in
TrainConfig `schedule_steps` (evaluated in the first fifth of a schedule), `restart` (an interrupted
run that lost its state) and `backbone_lr_factor` (below). The networks start from AdaptSegNet's
file DeepLab_resnet_pretrained_init-f81d91e8.pth: give its path with
--set model.backbone_weights=FILE.

Three things are equivalents, not repetitions:
- the log's optimizer held every backbone weight three times (four times in the shortcuts) and
  updated the copies one after the other. Here the backbone has three times the learning rate.
  Momentum, which the copies passed on three times per step, lasts longer, and shortcuts get a
  factor of 3, not 4;
- two GPUs with one image each are `batch_norm_parts=2` on one device;
- where the log made two equal forward passes of one batch (CutMix, FixMatch, and the target pass of
  the AdaptSegNet runs), this library makes one, with the sum of both losses. Running statistics
  then follow that batch once instead of twice.
Where a value was never recorded, a comment says so, and the preset has the most likely one.
"""

from uda.data.config import DataConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.experiments.parts import (
    balanced_hard,
    cityscapes,
    cyclegta5,
    deeplab_v2,
    gta5,
    seg_uncertainty,
)
from uda.models.segmentron import SegmenTronConfig
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig


def logged_multi_640x360_lsgan_b2() -> Experiment:
    """AdaptSegNet whose target was the source batch: in effect source only. 512x256 crops."""
    experiment = logged_multi_640x360_lsgan_b1()
    experiment.data.crop = (256, 512)
    experiment.train.batch_size = 2
    experiment.train.steps = 120_000
    return experiment


def logged_multi_640x360_lsgan_b1() -> Experiment:
    """AdaptSegNet whose target was the source batch, one image per step."""
    return Experiment(
        data=DataConfig(source=gta5(crop_label_values=0), crop=(360, 640)),
        model=deeplab_v2(levels=2),
        objectives={
            "supervised": SupervisedConfig(auxiliary_weight=0.1),
            # Not recorded: these are AdaptSegNet's two-level weights.
            "adversarial": AdversarialConfig(
                main_weight=0.001,
                auxiliary_weight=0.0002,
                loss="least_squares",
                target_view="source",
            ),
        },
        train=TrainConfig(
            steps=150_000,
            batch_size=1,
            precision="float32",
            optimizer=OptimizerConfig(name="sgd", lr=2.5e-4, momentum=0.9, weight_decay=5e-4),
            backbone_lr_factor=3.0,
            schedule_steps=200_000,
        ),
        evaluation=EvaluationConfig.following("adaptsegnet", dataset="cityscapes"),
    )


def logged_gc_640x360_b1() -> Experiment:
    """GTA5, Seg-Uncertainty's first stage, one image per step."""
    return Experiment(
        data=DataConfig(source=gta5(), target=cityscapes(), crop=(360, 640)),
        model=seg_uncertainty(),
        objectives={
            "supervised": balanced_hard(),
            "adversarial": AdversarialConfig(
                main_weight=0.001,
                auxiliary_weight=0.0002,
                loss="least_squares",
                discriminator="multi_scale",
                gradient_penalty=0.01,
                source_prediction="fused",
            ),
            # The entropy term of these runs had weight 0.
            "memory": MemoryRegularizationConfig(weight=0.1, start_step=15_000),
        },
        train=_sgd(steps=110_000, batch_size=1),
        # Four views: two sizes and their mirror images.
        evaluation=EvaluationConfig.following("mrnet", dataset="cityscapes"),
    )


def logged_agc_640x360_b1() -> Experiment:
    """GTA5 and CycleGTA5, one image per step."""
    experiment = logged_gc_640x360_b1()
    # How the two were mixed was not recorded: here as one list.
    experiment.data.source = gta5(datasets=("gta5", "cyclegta5"))
    return experiment


def logged_aagc_640x360_b2() -> Experiment:
    """CycleGTA5, two images per step, one on each of two GPUs."""
    experiment = _on_two_gpus()
    experiment.data.source = cyclegta5()
    experiment.train.steps = 40_000
    return experiment


def logged_aagc_640x360_b2_multiaug() -> Experiment:
    """Every image of both domains distorted."""
    experiment = logged_aagc_640x360_b2()
    experiment.data.source = cyclegta5(policy="autoaugment_log")
    experiment.data.target = cityscapes(policy="autoaugment_log")
    experiment.train.steps = 20_000
    return experiment


def logged_aagc_640x360_b2_student() -> Experiment:
    """No student: its labels were in no loss. aagc_640x360_b2 continued with more target images."""
    experiment = logged_aagc_640x360_b2_student_full()
    experiment.train.initial_snapshot = "snapshots/logged_aagc_640x360_b2/GTA5_40000.pth"
    experiment.train.steps = 20_000
    return experiment


def logged_aagc_640x360_b2_student_autoaug() -> Experiment:
    """The same with every source image distorted."""
    experiment = logged_aagc_640x360_b2_student()
    experiment.data.source = cyclegta5(policy="autoaugment_log")
    experiment.train.steps = 25_000
    return experiment


def logged_aagc_640x360_b2_student_full() -> Experiment:
    """No student: aagc_640x360_b2 with all 22973 training images as target."""
    experiment = logged_aagc_640x360_b2()
    experiment.data.target = cityscapes(splits=("train_extra", "train"))
    experiment.train.steps = 60_000
    return experiment


def logged_aagc_640x360_b2_student_full_autoaug() -> Experiment:
    """The same with every image of both domains distorted."""
    experiment = logged_aagc_640x360_b2_student_full()
    experiment.data.source = cyclegta5(policy="autoaugment_log")
    experiment.data.target = cityscapes(splits=("train_extra", "train"), policy="autoaugment_log")
    experiment.train.steps = 45_000
    return experiment


def logged_gc_640x360_b2_d1000() -> Experiment:
    """GTA5 and the first 1000 target images, read before memory regularization sets in."""
    experiment = _on_two_gpus()
    experiment.data.target = cityscapes(first=1000)
    experiment.train.steps = 10_000
    del experiment.objectives["memory"]  # it would start at step 15000
    return experiment


def logged_aagc_640x360_b2_d1000() -> Experiment:
    """CycleGTA5 and the first 1000 target images."""
    experiment = logged_aagc_640x360_b2()
    experiment.data.target = cityscapes(first=1000)
    experiment.train.steps = 20_000
    return experiment


def logged_aagc_640x360_b2_d500() -> Experiment:
    """CycleGTA5 and the first 500 target images."""
    experiment = logged_aagc_640x360_b2_d1000()
    experiment.data.target = cityscapes(first=500)
    return experiment


def logged_cityscapes_seg() -> Experiment:
    """Oracle: supervised by the target's 2975 labels."""
    experiment = _on_two_gpus()
    experiment.data.source = cityscapes()
    experiment.data.target = None
    experiment.objectives = {"supervised": balanced_hard()}
    experiment.train.steps = 30_000
    return experiment


def logged_cityscapes_seg_d2000() -> Experiment:
    """Oracle: the first 2000 labels."""
    experiment = logged_cityscapes_seg()
    experiment.data.source = cityscapes(first=2000)
    experiment.train.steps = 40_000
    return experiment


def logged_cityscapes_seg_d1000() -> Experiment:
    """Oracle: the first 1000 labels."""
    experiment = logged_cityscapes_seg_d2000()
    experiment.data.source = cityscapes(first=1000)
    return experiment


def logged_cityscapes_seg_d500() -> Experiment:
    """Oracle: the first 500 labels."""
    experiment = logged_cityscapes_seg_d2000()
    experiment.data.source = cityscapes(first=500)
    return experiment


def logged_cityscapes_seg_d100() -> Experiment:
    """Oracle: the first 100 labels, all from Aachen."""
    experiment = logged_cityscapes_seg()
    experiment.data.source = cityscapes(first=100)
    experiment.train.steps = 20_000
    return experiment


def logged_segmentron_deeplabv3plus_r101_cityscapes() -> Experiment:
    """Evaluation only: SegmenTron's released weights (--restore-from FILE)."""
    return Experiment(
        model=SegmenTronConfig(),
        train=TrainConfig(
            steps=0,
            batch_size=1,
            initial_snapshot="weights/deeplabv3_plus_resnet101_segmentron.pth",
        ),
        evaluation=EvaluationConfig.following("segmentron", dataset="cityscapes"),
    )


def _on_two_gpus() -> Experiment:
    """logged_gc_640x360_b1 with two images per step, one on each GPU."""
    experiment = logged_gc_640x360_b1()
    experiment.model = seg_uncertainty(batch_norm_parts=2)
    experiment.train.batch_size = 2
    return experiment


def _sgd(*, steps: int, batch_size: int) -> TrainConfig:
    """Seg-Uncertainty's optimizer, in the first part of a schedule of 250000 steps."""
    return TrainConfig(
        steps=steps,
        batch_size=batch_size,
        precision="float32",
        optimizer=OptimizerConfig(
            name="sgd", lr=2e-4, momentum=0.9, nesterov=True, weight_decay=5e-4
        ),
        backbone_lr_factor=3.0,
        head_lr_factor=10.0,
        warmup_steps=5_000,
        schedule_steps=250_000,
    )
