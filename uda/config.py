"""Experiment: everything that decides what a run computes, as one tree of dataclasses."""

from dataclasses import dataclass, field
from typing import Literal

from uda.data.config import DataConfig, DomainConfig
from uda.errors import InputError
from uda.evaluation import EvaluationConfig
from uda.models import ModelConfig
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


@dataclass(kw_only=True, slots=True)
class Experiment:
    """A preset: data, network, objectives, training and evaluation."""

    data: DataConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    objectives: dict[str, ObjectiveConfig]
    teacher: TeacherConfig | None = None
    train: TrainConfig
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def validate(experiment: Experiment) -> None:
    """Raises InputError when a value has the wrong type, is out of range, or would be ignored."""
    check_types(experiment, origin="experiment")
    _check_numbers(experiment)
    _check_ranges(experiment)
    _check_needs(experiment)


def _check_numbers(experiment: Experiment) -> None:
    data, train, evaluation = experiment.data, experiment.train, experiment.evaluation
    positive = {
        "train.steps": train.steps,
        "train.batch_size": train.batch_size,
        "train.log_every": train.log_every,
        "train.snapshot_every": train.snapshot_every,
        "train.resume_every": train.resume_every,
        "train.head_lr_factor": train.head_lr_factor,
        "evaluation.every": evaluation.every,
        "evaluation.scales": min(evaluation.scales, default=0),
        "evaluation.input_size": min(evaluation.input_size or (1,)),
        "data.crop": min(data.crop),
    }
    for name, objective in experiment.objectives.items():
        positive[f"objectives.{name}.weight"] = objective.weight
    for name, value in positive.items():
        if value <= 0:
            raise InputError(f"{name} is {value}; it must be above 0")
    not_negative = {
        "train.seed": train.seed,
        "train.power": train.power,
        "data.workers": data.workers,
        "data.source.crop_label_values": data.source.crop_label_values,
    }
    for name, value in not_negative.items():
        if value < 0:
            raise InputError(f"{name} is {value}; it must not be negative")
    if experiment.teacher is not None and not 0 <= experiment.teacher.momentum < 1:
        raise InputError(
            f"teacher.momentum is {experiment.teacher.momentum}; allowed: 0 up to, not including, 1"
        )


def _check_optimizer(name: str, optimizer: OptimizerConfig) -> None:
    if optimizer.lr <= 0:
        raise InputError(f"{name}.lr is {optimizer.lr}; it must be above 0")
    if optimizer.weight_decay < 0:
        raise InputError(f"{name}.weight_decay is {optimizer.weight_decay}; allowed: 0 or more")
    if not all(0 <= value < 1 for value in (optimizer.momentum, *optimizer.betas)):
        raise InputError(
            f"{name}.momentum is {optimizer.momentum}, its betas are {optimizer.betas}; allowed: 0 "
            "up to, not including, 1"
        )
    if optimizer.nesterov and not optimizer.momentum:
        raise InputError(f"{name}.nesterov needs a momentum above 0")


def _check_ranges(experiment: Experiment) -> None:
    data, train, objectives = experiment.data, experiment.train, experiment.objectives
    _check_optimizer("train.optimizer", train.optimizer)
    for name, objective in objectives.items():
        own = getattr(objective, "optimizer", None)
        if isinstance(own, OptimizerConfig):
            _check_optimizer(f"objectives.{name}.optimizer", own)
    if not 0 <= train.warmup_steps < train.steps:
        raise InputError(
            f"train.warmup_steps is {train.warmup_steps}; it must be below train.steps "
            f"({train.steps})"
        )
    if not objectives:
        raise InputError("experiment.objectives is empty: there is nothing to learn from")
    if min(objective.start_step for objective in objectives.values()) > 0:
        raise InputError("every objective has a start_step above 0: nothing is learned before")
    for name, objective in objectives.items():
        if not 0 <= objective.start_step < train.steps:
            raise InputError(
                f"objectives.{name}.start_step is {objective.start_step}: the run ends at step "
                f"{train.steps}, so the objective would never take part"
            )
    _check_domain("source", data.source, data.crop)
    if data.target is not None:
        _check_domain("target", data.target, data.crop)
        if data.target.crop_label_values:
            raise InputError(
                "data.target.crop_label_values: target images have no labels to choose crops by"
            )


def _check_domain(name: str, domain: DomainConfig, crop: tuple[int, int]) -> None:
    low, high = domain.scale
    if not 0 < low <= high:
        raise InputError(f"data.{name}.scale is {domain.scale}; allowed: 0 < lowest <= highest")
    smallest = tuple(round(side * low) for side in domain.size)
    if smallest[0] < crop[0] or smallest[1] < crop[1]:
        raise InputError(
            f"data.crop {crop} does not fit data.{name}: images of {domain.size} times {low} are "
            f"{smallest} (height, width)"
        )
    if domain.first is not None and domain.first < 1:
        raise InputError(f"data.{name}.first is {domain.first}; allowed: none or at least 1")


def _check_needs(experiment: Experiment) -> None:
    """Everything an objective needs is there, and nothing is there that no objective needs."""
    have = {
        "target": ("data.target", experiment.data.target is not None),
        "teacher": ("teacher", experiment.teacher is not None),
        "pseudo_labels": ("data.pseudo_labels", experiment.data.pseudo_labels is not None),
        "auxiliary_head": ("model.auxiliary_head", experiment.model.auxiliary_head),
    }
    for need, (field_name, present) in have.items():
        users = [name for name, o in experiment.objectives.items() if need in o.needs()]
        if users and not present:
            raise InputError(f"objective {users[0]!r} needs {field_name}, which this preset lacks")
        if present and not users:
            raise InputError(
                f"{field_name} is set, but no objective uses it; set {field_name}="
                f"{'false' if need == 'auxiliary_head' else 'none'} or add an objective that does"
            )
