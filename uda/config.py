"""Experiment: everything that decides what a run computes, as one tree of dataclasses."""

from dataclasses import dataclass, field
from typing import Literal

from uda.data.config import DataConfig
from uda.errors import require
from uda.evaluation import EvaluationConfig
from uda.models import DeepLabV3PlusConfig, ModelConfig
from uda.objectives.base import ObjectiveConfig
from uda.optimizers import OptimizerConfig
from uda.plain import check_types
from uda.teacher import TeacherConfig


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The length of a run and how its weights move."""

    steps: int
    batch_size: int  # images of each domain per step
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # bfloat16: autocast, weights stay float
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    head_lr_factor: float = 10.0  # learning rate of everything but the backbone, relative
    warmup_steps: int = 0
    power: float = 0.9  # of the polynomial decay, which ends at the last step
    initial_snapshot: str | None = None  # snapshot of ours whose student the run starts from
    log_every: int = 20
    snapshot_every: int = 5000
    resume_every: int = 1000

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        for name in ("steps", "batch_size", "head_lr_factor", "log_every", "snapshot_every",
                     "resume_every"):  # fmt: skip
            value = getattr(self, name)
            require(value > 0, f"{path}.{name} is {value}; it must be above 0")
        for name in ("seed", "power"):
            value = getattr(self, name)
            require(value >= 0, f"{path}.{name} is {value}; it must not be negative")
        require(
            0 <= self.warmup_steps < self.steps,
            f"{path}.warmup_steps is {self.warmup_steps}; it must be below {path}.steps "
            f"({self.steps})",
        )
        self.optimizer.check(f"{path}.optimizer")


@dataclass(kw_only=True, slots=True)
class Experiment:
    """A preset: data, network, objectives, training and evaluation."""

    data: DataConfig
    model: ModelConfig = field(default_factory=DeepLabV3PlusConfig)
    objectives: dict[str, ObjectiveConfig]
    teacher: TeacherConfig | None = None
    train: TrainConfig
    evaluation: EvaluationConfig


def validate(experiment: Experiment) -> None:
    """Raises InputError when a value has the wrong type, is out of range, or would be ignored."""
    check_types(experiment, origin="experiment")
    experiment.data.check("data")
    experiment.train.check("train")
    experiment.evaluation.check("evaluation")
    if experiment.teacher is not None:
        experiment.teacher.check("teacher")
    for name, objective in experiment.objectives.items():
        objective.check(f"objectives.{name}")
    _check_start_steps(experiment)
    _check_needs(experiment)


def _check_start_steps(experiment: Experiment) -> None:
    steps = experiment.train.steps
    starts = {name: objective.start_step for name, objective in experiment.objectives.items()}
    require(bool(starts), "experiment.objectives is empty: there is nothing to learn from")
    require(0 in starts.values(), "every objective has a start_step above 0: nothing is learned "
            "before")  # fmt: skip
    for name, start in starts.items():
        require(
            start < steps,
            f"objectives.{name}.start_step is {start}: the run ends at step {steps}, so the "
            "objective would never take part",
        )


def _check_needs(experiment: Experiment) -> None:
    """Everything an objective needs is there, and nothing is there that no objective needs."""
    auxiliary, without = experiment.model.auxiliary_switch
    have = {
        "target": ("data.target", experiment.data.target is not None),
        "teacher": ("teacher", experiment.teacher is not None),
        "pseudo_labels": ("data.pseudo_labels", experiment.data.pseudo_labels is not None),
        "auxiliary_head": (f"model.{auxiliary}", experiment.model.has_auxiliary_head),
    }
    for need, (field_name, present) in have.items():
        users = [name for name, o in experiment.objectives.items() if need in o.needs()]
        if users:
            require(present, f"objective {users[0]!r} needs {field_name}, which this preset lacks")
        off = without if need == "auxiliary_head" else "none"
        require(
            bool(users) or not present,
            f"{field_name} is set, but no objective uses it; set {field_name}={off} or add an "
            "objective that does",
        )
