"""A run: the networks, optimizers and the step counter that training changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from uda.checkpoints.snapshots import load as load_snapshot
from uda.checkpoints.stored import load_weights
from uda.data.batch import View
from uda.experiment import Experiment
from uda.models.segmenter import Segmenter
from uda.models.synchronized_batch_norm import synchronize_batch_norm
from uda.objectives.base import Objective
from uda.optim.groups import freeze_unlearned, student_groups
from uda.optim.loss_scale import LossScale
from uda.optim.optimizers import ParameterGroup, build_optimizer, load_state, state_of
from uda.optim.plateau import Plateau
from uda.optim.teacher import MeanTeacher
from uda.utilities.distributed import GradientExchange, world_size
from uda.utilities.errors import InputError, require, shown

_FIX = "use the file that this run wrote"
STUDENT = "student"  # name of the student's optimizer; the others have their objective's name


@dataclass(slots=True)
class Run:
    """All that changes during a run. `step` is the number of updates so far."""

    experiment: Experiment
    num_classes: int
    device: torch.device
    student: Segmenter
    teacher: MeanTeacher | None
    objectives: dict[str, Objective]
    optimizers: dict[str, torch.optim.Optimizer]
    exchange: GradientExchange | None = None  # with the other processes, if there are any
    plateau: Plateau | None = None  # sets the learning rate, if the preset has one
    loss_scale: LossScale | None = None  # if the precision is float16
    step: int = 0
    skipped: int = 0  # steps without an update, because something was not finite

    @property
    def teacher_start(self) -> int | None:
        """The first step in which an objective uses the teacher; it is not updated earlier."""
        users = [c for c in self.experiment.objectives.values() if "teacher" in c.needs()]
        return min((config.start_step for config in users), default=None)

    def state(self) -> dict[str, Any]:
        """What `load_state` needs, besides the snapshot, to continue exactly; on the first rank.
        Must be called on all ranks."""
        start = self.teacher_start
        # Before its first use, the teacher has no state of its own.
        teacher = self.teacher if start is not None and self.step > start else None
        return {
            "step": self.step,
            "skipped": self.skipped,
            "plateau": None if self.plateau is None else self.plateau.state(),
            "loss_scale": None if self.loss_scale is None else self.loss_scale.state(),
            "student": self.student.state_dict(),
            "teacher": None if teacher is None else teacher.network.state_dict(),
            "objectives": {name: o.state_dict() for name, o in self.objectives.items()},
            "optimizers": {name: state_of(o) for name, o in self.optimizers.items()},
        }

    def load_state(self, state: Mapping[str, Any], *, origin: str = "resume.pth") -> None:
        """Restores what `state` returned in another process.

        Raises InputError, naming `origin`, when it belongs to another run.
        """
        steps = self.experiment.train.steps
        require(state["step"] <= steps, f"{origin} is of step {state['step']}; the run has {steps}")
        for kind in ("objectives", "optimizers"):
            ours, theirs = sorted(getattr(self, kind)), sorted(state[kind])
            require(
                ours == theirs,
                f"{origin} is damaged: it has the {kind} {shown(theirs)}, the run {ours}; {_FIX}",
            )
        load_weights(self.student, state["student"], origin=origin)
        if self.teacher is not None and state["teacher"] is not None:
            load_weights(self.teacher.network, state["teacher"], origin=origin)
        for name, objective in self.objectives.items():
            load_weights(objective, state["objectives"][name], origin=f"{origin}, {name}")
        for name, optimizer in self.optimizers.items():
            load_state(optimizer, state["optimizers"][name], origin=f"{origin}, {name}")
        for kind in ("plateau", "loss_scale"):
            rule = getattr(self, kind)
            if rule is not None:
                if state.get(kind) is None:
                    what = kind.replace("_", " ")
                    raise InputError(f"{origin} is damaged: it has no state of the {what}; {_FIX}")
                rule.load_state(state[kind])
        self.step, self.skipped = state["step"], state["skipped"]

    def networks(self) -> list[nn.Module]:
        """All modules with parameters or buffers."""
        teacher = [] if self.teacher is None else [self.teacher]
        return [self.student, *teacher, *self.objectives.values()]

    def gradients(self) -> list[Tensor]:
        """The gradients of all parameters that have one."""
        parameters = (p for network in self.networks() for p in network.parameters())
        return [parameter.grad for parameter in parameters if parameter.grad is not None]

    def forget(self) -> None:
        """Re-initializes discriminators, averages and optimizers, as TrainConfig.restart asks. The
        student stays. New weights are sampled from torch's global generator."""
        self.objectives = _build_objectives(self.experiment, self.num_classes, self.device)
        attach(self.objectives, self.student)
        self.optimizers = _build_optimizers(self.experiment, self.student, self.objectives)
        self.exchange = _build_exchange(self.student, self.objectives)


def start_run(experiment: Experiment, *, num_classes: int, device: torch.device) -> Run:
    """A run at step 0, randomly initialized from the preset's seed."""
    torch.manual_seed(experiment.train.seed)
    student = experiment.model.build(num_classes).to(device)
    synchronize_batch_norm(student, device)
    student = student.to(memory_format=torch.channels_last)
    freeze_unlearned(student, experiment.train.learned)
    objectives = _build_objectives(experiment, num_classes, device)
    attach(objectives, student)
    # A copy of the student, which no longer looks at the numbers of its images.
    teacher = None if experiment.teacher is None else MeanTeacher(student, experiment.teacher)
    if experiment.train.restart is not None:
        _refuse_copies(objectives)
    optimizers = _build_optimizers(experiment, student, objectives)
    exchange = _build_exchange(student, objectives)
    schedule = experiment.train.plateau
    return Run(
        experiment, num_classes, device, student, teacher, objectives, optimizers, exchange,
        plateau=None if schedule is None else Plateau(schedule),
        loss_scale=LossScale() if experiment.train.precision == "float16" else None,
    )  # fmt: skip


def _build_objectives(
    experiment: Experiment, num_classes: int, device: torch.device
) -> dict[str, Objective]:
    configs = experiment.objectives
    return {name: config.build(num_classes).to(device) for name, config in configs.items()}


def attach(objectives: Mapping[str, Objective], student: Segmenter) -> None:
    """Lets objectives copy what they need of the student with its initial weights. None of these
    networks looks at the numbers of its images: that would wait for the device."""
    device = next(student.parameters()).device
    for objective in objectives.values():
        path = objective.config.frozen_snapshot()
        objective.attach(student if path is None else load_snapshot(Path(path)).build().to(device))
        objective.to(device)
    for network in (student, *(part for o in objectives.values() for part in o.modules())):
        if isinstance(network, Segmenter):
            network.levels_seen = True


def _refuse_copies(objectives: Mapping[str, Objective]) -> None:
    """Raises InputError for objectives that compare the student with its own first weights: they
    cannot be built anew in the middle of a run."""
    for name, objective in objectives.items():
        copies = type(objective).attach is not Objective.attach and any(
            True for _ in objective.parameters()
        )
        require(
            not copies or objective.config.frozen_snapshot() is not None,
            f"train.restart builds all objectives anew in the middle of the run, but "
            f"objectives.{name} keeps a copy of the network as it was at the start: add "
            f"--set train.restart=none or --set objectives.{name}=none",
        )


def _build_optimizers(
    experiment: Experiment, student: Segmenter, objectives: Mapping[str, Objective]
) -> dict[str, torch.optim.Optimizer]:
    """The student's optimizer, and one for each objective with networks of its own."""
    train = experiment.train
    groups = student_groups(student, train)
    sharded = train.shard_optimizer and world_size() > 1
    optimizers = {STUDENT: build_optimizer(train.optimizer, groups, sharded=sharded)}
    for name, objective in objectives.items():
        if objective.optimizer is not None:
            trained = [p for p in objective.parameters() if p.requires_grad]
            own: ParameterGroup = {"params": trained, "lr_factor": 1.0}
            optimizers[name] = build_optimizer(objective.optimizer, [own])
    return optimizers


def _build_exchange(
    student: Segmenter, objectives: Mapping[str, Objective]
) -> GradientExchange | None:
    return None if world_size() == 1 else GradientExchange([student, *objectives.values()])


class StepResult(NamedTuple):
    """What a step returns for the records; reading a loss synchronizes with the device."""

    losses: dict[str, Tensor]  # scalars, detached, by "loss/<objective>/<term>"
    views: list[View]  # the student was applied to
    # Counts of this process, see uda/objectives/counts.py; none if none are due.
    counts: dict[str, Tensor]
    skipped: bool = False  # no weight was updated: a loss or gradient was not finite
    # The norm of all gradients together, a scalar; None where they were looked at already.
    gradient_norm: Tensor | None = None
