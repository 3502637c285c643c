"""The experiment log's runs on GTA5, CycleGTA5 and Cityscapes, as they were meant.

`gc` trains on GTA5, `aagc` on CycleGTA5, `agc` on both; 640x360 is the crop (width x height), `b2`
the batch size, `d500` means the first 500 target images. Data, losses and hyperparameters are the
log's. The following differs from the log and is the same in every preset, for a fair comparison:
- target labels are not used, unless a description says so;
- network: DeepLabV3+ on a torchvision ResNet-101 at output stride 16, with group norm in the heads;
- schedule: 45000 steps; the network is evaluated where the schedule ends;
- backbone learning rate: the nominal one; the log's optimizer held each weight three times;
- precision: bfloat16 autocast; batch statistics over both images of a batch, not one per device;
- evaluation: main head, one view of 1024x512.
What was really run is in logged.py, under the same names with the prefix `logged_`.
"""

from uda.data.config import DataConfig
from uda.evaluation.evaluate import EvaluationConfig
from uda.experiment import Experiment, TrainConfig
from uda.experiments.parts import balanced_hard, cityscapes, cyclegta5, gta5
from uda.models.deeplabv3plus import DeepLabV3PlusConfig
from uda.objectives.adversarial import AdversarialConfig
from uda.objectives.memory_regularization import MemoryRegularizationConfig
from uda.objectives.pseudo_label import PseudoLabelConfig
from uda.objectives.supervised import SupervisedConfig
from uda.optim.optimizers import OptimizerConfig


def multi_640x360_lsgan_b2() -> Experiment:
    """GTA5, AdaptSegNet on two levels with least-squares discriminators."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = cityscapes()
    experiment.data.source = gta5(crop_label_values=0)
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.1)
    # The log does not record its loss weights; these are AdaptSegNet's for two levels.
    experiment.objectives["adversarial"] = AdversarialConfig(
        main_weight=0.001, auxiliary_weight=0.0002, loss="least_squares"
    )
    experiment.train.optimizer = OptimizerConfig(
        name="sgd", lr=2.5e-4, momentum=0.9, weight_decay=5e-4
    )
    experiment.train.warmup_steps = 0
    return experiment


def multi_640x360_lsgan_b1() -> Experiment:
    """The same with one image of each domain per step."""
    experiment = multi_640x360_lsgan_b2()
    experiment.train.batch_size = 1
    return experiment


def gc_640x360_b2_source_only() -> Experiment:
    """GTA5 labels alone: the baseline of every adaptation."""
    return Experiment(
        data=DataConfig(source=gta5(), crop=(360, 640)),
        # Batch statistics, weight and bias of the backbone's batch norm fixed.
        model=DeepLabV3PlusConfig(backbone="resnet101", batch_norm="frozen_affine"),
        objectives={"supervised": SupervisedConfig()},
        train=TrainConfig(
            steps=45_000,
            batch_size=2,
            optimizer=OptimizerConfig(
                name="sgd", lr=2e-4, momentum=0.9, nesterov=True, weight_decay=5e-4
            ),
            head_lr_factor=10.0,
            warmup_steps=5_000,
        ),
        evaluation=EvaluationConfig.following("half_input", dataset="cityscapes"),
    )


def aagc_640x360_b2_source_only() -> Experiment:
    """CycleGTA5 labels alone."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.source = cyclegta5()
    return experiment


def gc_640x360_b2() -> Experiment:
    """GTA5, adversarial on two levels, memory regularization in the last two thirds."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.target = cityscapes()
    experiment.objectives["supervised"] = balanced_hard()
    experiment.objectives["adversarial"] = AdversarialConfig(
        main_weight=0.001,
        auxiliary_weight=0.0002,
        loss="least_squares",
        discriminator="multi_scale",
        gradient_penalty=0.01,
        source_prediction="fused",
    )
    experiment.objectives["memory"] = MemoryRegularizationConfig(weight=0.1, start_step=15_000)
    return experiment


def gc_640x360_b1() -> Experiment:
    """gc_640x360_b2 with one image of each domain per step."""
    experiment = gc_640x360_b2()
    experiment.train.batch_size = 1
    return experiment


def gc_640x360_b2_d1000() -> Experiment:
    """gc_640x360_b2 with the first 1000 target images."""
    experiment = gc_640x360_b2()
    experiment.data.target = cityscapes(first=1000)
    return experiment


def agc_640x360_b1() -> Experiment:
    """GTA5 and CycleGTA5 together, adversarial on two levels, one image per step."""
    experiment = gc_640x360_b1()
    experiment.data.source = gta5(datasets=("gta5", "cyclegta5"))
    return experiment


def aagc_640x360_b2() -> Experiment:
    """CycleGTA5, adversarial on two levels, memory regularization in the last two thirds."""
    experiment = gc_640x360_b2()
    experiment.data.source = cyclegta5()
    return experiment


def aagc_640x360_b2_d1000() -> Experiment:
    """aagc_640x360_b2 with the first 1000 target images."""
    experiment = aagc_640x360_b2()
    experiment.data.target = cityscapes(first=1000)
    return experiment


def aagc_640x360_b2_d500() -> Experiment:
    """aagc_640x360_b2 with the first 500 target images."""
    experiment = aagc_640x360_b2()
    experiment.data.target = cityscapes(first=500)
    return experiment


def aagc_640x360_b2_multiaug() -> Experiment:
    """aagc_640x360_b2, every image of both domains distorted by photometric AutoAugment."""
    experiment = aagc_640x360_b2()
    experiment.data.source = cyclegta5(policy="autoaugment_log")
    experiment.data.target = cityscapes(policy="autoaugment_log")
    return experiment


def aagc_640x360_b2_student() -> Experiment:
    """aagc_640x360_b2 continued with its own pseudo-labels of all 22973 training images."""
    experiment = aagc_640x360_b2_student_full()
    experiment.train.initial_snapshot = "snapshots/aagc_640x360_b2/GTA5_45000.pth"
    return experiment


def aagc_640x360_b2_student_autoaug() -> Experiment:
    """The student with its source images distorted by photometric AutoAugment."""
    experiment = aagc_640x360_b2_student()
    experiment.data.source = cyclegta5(policy="autoaugment_log")
    return experiment


def aagc_640x360_b2_student_full() -> Experiment:
    """The student from ImageNet weights instead of those of aagc_640x360_b2."""
    experiment = aagc_640x360_b2()
    experiment.data.target = cityscapes(splits=("train_extra", "train"))
    experiment.data.pseudo_labels = "snapshots/aagc_640x360_b2/pseudo_labels"
    # The log's students computed their labels but never learned from them; these do.
    experiment.objectives["pseudo_label"] = PseudoLabelConfig()
    return experiment


def aagc_640x360_b2_student_full_autoaug() -> Experiment:
    """The same with both domains distorted by photometric AutoAugment."""
    experiment = aagc_640x360_b2_student_full()
    experiment.data.source = cyclegta5(policy="autoaugment_log")
    experiment.data.target = cityscapes(splits=("train_extra", "train"), policy="autoaugment_log")
    return experiment


def cityscapes_seg() -> Experiment:
    """Oracle: supervised by the labels of the 2975 Cityscapes training images."""
    experiment = gc_640x360_b2_source_only()
    experiment.data.source = cityscapes()
    experiment.objectives["supervised"] = balanced_hard()
    return experiment


def cityscapes_seg_d2000() -> Experiment:
    """Oracle: supervised by the labels of the first 2000."""
    experiment = cityscapes_seg()
    experiment.data.source = cityscapes(first=2000)
    return experiment


def cityscapes_seg_d1000() -> Experiment:
    """Oracle: supervised by the labels of the first 1000."""
    experiment = cityscapes_seg()
    experiment.data.source = cityscapes(first=1000)
    return experiment


def cityscapes_seg_d500() -> Experiment:
    """Oracle: supervised by the labels of the first 500."""
    experiment = cityscapes_seg()
    experiment.data.source = cityscapes(first=500)
    return experiment


def cityscapes_seg_d100() -> Experiment:
    """Oracle: supervised by the labels of the first 100, all from Aachen."""
    experiment = cityscapes_seg()
    experiment.data.source = cityscapes(first=100)
    return experiment


def segmentron_deeplabv3plus_r101_cityscapes() -> Experiment:
    """Oracle: SegmenTron's recipe for Cityscapes, 769x769 crops of whole images."""
    experiment = cityscapes_seg()
    # SegmenTron pads images that are smaller than the crop, down to a scale of 0.5.
    experiment.data.source = cityscapes(size=(1024, 2048), scale=(0.76, 2.0), mirror=True)
    experiment.data.crop = (769, 769)
    experiment.model = DeepLabV3PlusConfig(
        backbone="resnet101", align_corners=True, auxiliary_head=False
    )
    experiment.objectives["supervised"] = SupervisedConfig(auxiliary_weight=0.0)
    experiment.train.batch_size = 8  # four per device; the number of devices is not recorded
    experiment.train.steps = 148_800  # 400 epochs
    experiment.train.optimizer = OptimizerConfig(
        name="sgd", lr=0.02, momentum=0.9, weight_decay=1e-4
    )
    experiment.train.warmup_steps = 0
    experiment.evaluation.follow("native")
    return experiment
