"""Experiment: everything that decides what a run computes, as one tree of dataclasses."""

from dataclasses import dataclass, field, replace
from typing import Literal

from uda.data.config import DataConfig, require_workers
from uda.errors import require, require_share
from uda.evaluation import EvaluationConfig
from uda.models import DeepLabV3PlusConfig, ModelConfig
from uda.objectives.base import ObjectiveConfig
from uda.optimizers import OptimizerConfig
from uda.plain import check_types, differences, to_plain
from uda.plateau import PlateauConfig
from uda.schedules import CosineRestartsConfig
from uda.teacher import TeacherConfig


@dataclass(kw_only=True, slots=True)
class RestartConfig:
    """What an interrupted run of the experiment log lost when it was taken up again: from `at_step`
    on, momentum, discriminators and class balance begin anew, under another schedule."""

    at_step: int
    schedule_steps: int  # as TrainConfig.schedule_steps

    def check(self, path: str, *, steps: int) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(
            0 < self.at_step < steps,
            f"{path}.at_step is {self.at_step}; allowed: above 0 and below the run's {steps} steps",
        )
        require(
            self.schedule_steps >= steps,
            f"{path}.schedule_steps is {self.schedule_steps}; the run has {steps} steps",
        )


_OF_POLYNOMIAL_DECAY = ("power", "final_lr_factor", "schedule_steps", "restart", "warmup_steps")


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The length of a run and how its weights move."""

    steps: int  # 0: the first weights are evaluated, and nothing is trained
    batch_size: int  # images of each domain per step
    seed: int = 0
    precision: Literal["float32", "bfloat16"] = "bfloat16"  # bfloat16: autocast, weights stay float
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    backbone_lr_factor: float = 1.0  # learning rate of the backbone, relative to the optimizer's
    head_lr_factor: float = 10.0  # that of everything else
    # Whether weight decay reaches the student's normalization layers and embeddings (queries).
    decay_norms: bool = True
    # The student's gradient, all of it one vector, is scaled down to this length if it is longer.
    max_grad_norm: float | None = None
    warmup_steps: int = 0
    power: float = 0.9  # of the polynomial decay
    final_lr_factor: float = 0.0  # the share of the learning rate that it comes down to
    # The step at which the decay would end. None: `steps`, so that a network is evaluated where its
    # schedule ends; the log read its networks in the first fifth of one.
    schedule_steps: int | None = None
    restart: RestartConfig | None = None
    # Instead of the polynomial decay: cosines, what follows the scores or losses, or the one after
    # the other.
    cosine_restarts: CosineRestartsConfig | None = None
    plateau: PlateauConfig | None = None
    initial_snapshot: str | None = None  # snapshot of ours whose student the run starts from
    log_every: int = 20  # steps between logs of losses and collapse monitors
    # Target images that each evaluation computes the label-free criteria on; 0: none are computed.
    unlabeled_images: int = 100
    snapshot_every: int = 5000
    resume_every: int = 1000
    # Steps to leave out, without an update, when a loss or gradient is not finite. Above 0, every
    # step waits for the device to know.
    skip_nonfinite: int = 0

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        for name in ("batch_size", "backbone_lr_factor", "head_lr_factor", "log_every",
                     "snapshot_every", "resume_every"):  # fmt: skip
            value = getattr(self, name)
            require(value > 0, f"{path}.{name} is {value}; it must be above 0")
        for name in ("steps", "seed", "power", "unlabeled_images", "skip_nonfinite"):
            value = getattr(self, name)
            require(value >= 0, f"{path}.{name} is {value}; it must not be negative")
        require(
            0 <= self.warmup_steps < max(self.steps, 1),
            f"{path}.warmup_steps is {self.warmup_steps}; it must be below {path}.steps "
            f"({self.steps})",
        )
        require(
            self.schedule_steps is None or self.schedule_steps >= self.steps,
            f"{path}.schedule_steps is {self.schedule_steps}; it must not be below {path}.steps "
            f"({self.steps})",
        )
        require(
            self.max_grad_norm is None or self.max_grad_norm > 0,
            f"{path}.max_grad_norm is {self.max_grad_norm}; allowed: none, or above 0",
        )
        require(
            self.decay_norms or self.optimizer.weight_decay > 0,
            f"{path}.decay_norms is false, but {path}.optimizer.weight_decay is 0: leave it true",
        )
        require_share(f"{path}.final_lr_factor", self.final_lr_factor)
        if self.restart is not None:
            self.restart.check(f"{path}.restart", steps=self.steps)
        self._check_schedules(path)
        self.optimizer.check(f"{path}.optimizer")

    def _check_schedules(self, path: str) -> None:
        """All of cosines and plateau is used, and nothing is set of the decay they replace."""
        cosine, plateau = self.cosine_restarts, self.plateau
        if cosine is None and plateau is None:
            return
        used = "cosine_restarts" if plateau is None else "plateau"
        default = TrainConfig(steps=0, batch_size=1)
        for name in _OF_POLYNOMIAL_DECAY:
            require(
                getattr(self, name) == getattr(default, name),
                f"{path}.{name} is set, but belongs to the polynomial decay, which {path}.{used} "
                "takes the place of: leave it as it is",
            )
        if plateau is not None:
            plateau.check(f"{path}.plateau")
        if cosine is not None:
            cosine.check(f"{path}.cosine_restarts", steps=self.steps)
            require(
                (cosine.from_step > 0) == (plateau is not None),
                f"{path}.cosine_restarts.from_step is {cosine.from_step}; allowed: 0, or, with a "
                f"{path}.plateau before it, the step at which that one ends",
            )

    @property
    def plateau_end(self) -> int:
        """The first step that the plateau does not set the rate of."""
        return self.steps if self.cosine_restarts is None else self.cosine_restarts.from_step

    def is_due(self, step: int, every: int) -> bool:
        """Whether what happens every so many steps does after `step` updates; at the last, all."""
        return step % every == 0 or step == self.steps

    def decay_steps(self, step: int) -> int:
        """The length of the schedule that sets the learning rate of `step`."""
        if self.restart is not None and step >= self.restart.at_step:
            return self.restart.schedule_steps
        return self.schedule_steps or self.steps


@dataclass(kw_only=True, slots=True)
class Experiment:
    """A preset: data, network, objectives, training and evaluation."""

    data: DataConfig = field(default_factory=DataConfig)  # none is needed to evaluate only
    model: ModelConfig = field(default_factory=DeepLabV3PlusConfig)
    objectives: dict[str, ObjectiveConfig] = field(default_factory=dict)
    teacher: TeacherConfig | None = None
    train: TrainConfig
    evaluation: EvaluationConfig


def validate(experiment: Experiment) -> None:
    """Raises InputError when a value has the wrong type, is out of range, or would be ignored."""
    check_types(experiment, origin="experiment")
    experiment.train.check("train")
    experiment.evaluation.check("evaluation")
    fused = experiment.evaluation.heads == "fused"
    require(
        experiment.model.has_auxiliary_head or not fused,
        "evaluation.heads is fused, but the network has no auxiliary head: use main",
    )
    if experiment.train.steps == 0:
        _check_evaluation_only(experiment)
        return
    experiment.data.check("data")
    if experiment.teacher is not None:
        experiment.teacher.check("teacher")
    for name, objective in experiment.objectives.items():
        objective.check(f"objectives.{name}")
    _check_start_steps(experiment)
    _check_needs(experiment)
    _check_plateau(experiment)
    images, default = experiment.train.unlabeled_images, TrainConfig(steps=0, batch_size=1)
    require(
        experiment.data.target is not None or images == default.unlabeled_images,
        f"train.unlabeled_images is {images}, but without data.target there are no such images: "
        "leave it as it is",
    )


def _check_evaluation_only(experiment: Experiment) -> None:
    """Without a step there are weights to read, and nothing is there that only training uses."""
    require(
        experiment.train.initial_snapshot is not None,
        "train.steps is 0: nothing is trained, so give --restore-from FILE to evaluate",
    )
    data, evaluation = experiment.data, experiment.evaluation
    require_workers("data.workers", data.workers)
    used = Experiment(
        data=DataConfig(root=data.root, workers=data.workers),
        model=experiment.model,
        train=TrainConfig(
            steps=0, batch_size=1, initial_snapshot=experiment.train.initial_snapshot
        ),
        evaluation=replace(evaluation, every=EvaluationConfig(dataset="").every),
    )
    ignored = differences(to_plain(experiment), to_plain(used))
    require(
        not ignored,
        f"train.steps is 0, so {', '.join(ignored)} would be ignored: leave it as in uda/config.py",
    )


def _check_plateau(experiment: Experiment) -> None:
    """What it watches is there often enough, and selects nothing by labels that are not there."""
    train, every = experiment.train, experiment.evaluation.every
    plateau = train.plateau
    if plateau is None:
        return
    require(
        plateau.watches == "loss" or experiment.data.target is None,
        "train.plateau.watches is miou, which would choose the learning rate by the labels that "
        "the preset is scored on, but data.target is to be learned without labels: watch loss",
    )
    # One evaluation to be the best, then one more than the patience.
    first = (plateau.patience + 2) * every
    require(
        first < train.plateau_end,
        f"train.plateau could change the rate at step {first} at the earliest ((patience "
        f"{plateau.patience} + 2) * evaluation.every {every}), but ends at {train.plateau_end}: "
        "evaluate more often, or lower train.plateau.patience",
    )


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
        "source": ("data.source", experiment.data.source is not None),
        "target": ("data.target", experiment.data.target is not None),
        "teacher": ("teacher", experiment.teacher is not None),
        "pseudo_labels": ("data.pseudo_labels", experiment.data.pseudo_labels is not None),
        "target_ground_truth": ("data.target_ground_truth", experiment.data.target_ground_truth),
        "second_target_view": (
            "data.second_target_view",
            experiment.data.second_target_view is not None,
        ),
        "auxiliary_head": (f"model.{auxiliary}", experiment.model.has_auxiliary_head),
        "queries": ("a network with queries, such as Mask2Former", experiment.model.has_queries),
    }
    _check_views(experiment)
    for need, (field_name, present) in have.items():
        users = [name for name, o in experiment.objectives.items() if need in o.needs()]
        if users:
            require(present, f"objective {users[0]!r} needs {field_name}, which this preset lacks")
        off = {"auxiliary_head": without, "target_ground_truth": "false"}.get(need, "none")
        if need == "queries":  # objectives that read logits train such a network, too
            continue
        require(
            bool(users) or not present,
            f"{field_name} is set, but no objective uses it; set {field_name}={off} or add an "
            "objective that does",
        )


def _check_views(experiment: Experiment) -> None:
    """A view that an objective wants from another is there from the step on in which it is read."""
    for reader, config in experiment.objectives.items():
        for view in config.reads_views():
            starts = [
                o.start_step for o in experiment.objectives.values() if view in o.adds_views()
            ]
            require(
                bool(starts) and min(starts) <= config.start_step,
                f"objective {reader!r} reads the view {view!r} from step {config.start_step} on, "
                "which no other objective adds from then on",
            )
