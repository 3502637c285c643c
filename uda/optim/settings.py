"""TrainConfig: how long a run trains, and how its weights are updated."""

from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

from uda.optim.optimizers import OptimizerConfig
from uda.optim.plateau import PlateauConfig
from uda.optim.schedules import CosineRestartsConfig, Warmup
from uda.utilities.distributed import world_size
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class RestartConfig:
    """What an interrupted run of the experiment log lost when it was resumed: at `at_step`,
    momentum, discriminators and class balance are re-initialized, and another schedule begins."""

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


_OF_POLYNOMIAL_DECAY = ("power", "final_lr_factor", "schedule_steps", "restart", "warmup_steps",
                        "warmup_start", "warmup")  # fmt: skip
Precision = Literal["float32", "bfloat16", "float16"]
Undecayed = Literal["norms", "encoder_norms", "one_dimensional"]
Learned = Literal["all", "norms", "all_but_classifier"]


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """The length of a run, and how its weights are updated."""

    steps: int  # 0: the initial weights are evaluated, and nothing is trained
    batch_size: int  # images of each domain per step
    seed: int = 0
    # Of the forward passes, by autocast; weights stay float32. "float16" is for GPUs without
    # bfloat16: losses are scaled, and every step synchronizes with the device.
    precision: Precision = "bfloat16"
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    # Each of several processes keeps what the student's optimizer remembers of a share of the
    # parameters only, and sends what it has updated to the others: less memory, the same bits.
    shard_optimizer: bool = False
    # Which of the student's parameters learn. "norms": weights and biases of normalization layers,
    # as in Tent (arXiv 2006.10726); "all_but_classifier": all but the last layers, which give the
    # scores of the classes, as in SHOT (arXiv 2002.08546). The others get no gradient.
    learned: Learned = "all"
    backbone_lr_factor: float = 1.0  # of the optimizer's learning rate, for the backbone
    head_lr_factor: float = 10.0  # of the optimizer's learning rate, for all other layers
    # Each layer of the encoder learns at this multiple of the next deeper one's rate.
    layer_decay: float = 1.0
    # Whether weight decay reaches all of the student's parameters, or not those of `undecayed`.
    decay_norms: bool = True
    # "norms": normalization layers and embeddings (queries); "encoder_norms": normalization layers
    # of the encoder, as in DAFormer; "one_dimensional": these two, tokens, biases and whatever has
    # one dimension, as in BEiT and timm.
    undecayed: Undecayed = "norms"
    # The student's gradient, as one vector, is scaled down to this length if it is longer.
    max_grad_norm: float | None = None
    warmup_steps: int = 0
    warmup_start: float = 0.1  # factor of the learning rate in the first of them
    warmup: Warmup = "towards_1"  # what is done to the decay meanwhile: see `learning_rate_factor`
    power: float = 0.9  # of the polynomial decay
    final_lr_factor: float = 0.0  # share of the learning rate at the end of the decay
    # The step at which the decay would end. None: `steps`, so that the network is evaluated at the
    # end of its schedule; the experiment log evaluated its networks in the first fifth of one.
    schedule_steps: int | None = None
    restart: RestartConfig | None = None
    # Instead of the polynomial decay: a plateau rule, cosines, or first the one and then the other.
    cosine_restarts: CosineRestartsConfig | None = None
    plateau: PlateauConfig | None = None
    # The earlier values of `steps` of a run that was extended, in ascending order. Up to each of
    # them, the schedule is that of a run of this length.
    extended_from: tuple[int, ...] = ()
    # Train on the first images of the source and score the network on the same ones, to see that
    # it can learn them. Every result says so.
    sanity_check: bool = False
    initial_snapshot: str | None = None  # snapshot whose student the run starts from
    log_every: int = 20  # steps between logs of losses and collapse monitors
    # Number of target images for the label-free criteria of each evaluation; 0: no such criteria.
    unlabeled_images: int = 100
    snapshot_every: int = 5000
    resume_every: int = 1000
    # Number of steps that may be skipped, without an update, when a loss or gradient is not finite.
    # Above 0, every step synchronizes with the device.
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
            f"({self.steps}): add --set {path}.warmup_steps={max(self.steps, 1) // 10}",
        )
        require(
            self.schedule_steps is None or self.schedule_steps >= self.steps,
            f"{path}.schedule_steps is {self.schedule_steps}; it must not be below {path}.steps "
            f"({self.steps}): add --set {path}.schedule_steps=none",
        )
        require(
            self.max_grad_norm is None or self.max_grad_norm > 0,
            f"{path}.max_grad_norm is {self.max_grad_norm}; allowed: none, or above 0",
        )
        require_share(f"{path}.final_lr_factor", self.final_lr_factor)
        require_share(f"{path}.warmup_start", self.warmup_start)
        require(
            0 < self.layer_decay <= 1,
            f"{path}.layer_decay is {self.layer_decay}; allowed: above 0 and up to 1",
        )
        lengths = (0, *self.extended_from, self.steps)
        require(
            not self.extended_from or all(a < b for a, b in pairwise(lengths)),
            f"{path}.extended_from is {self.extended_from}; allowed: ascending numbers of steps "
            f"above 0 and below {path}.steps ({self.steps})",
        )
        if self.restart is not None:
            self.restart.check(f"{path}.restart", steps=self.steps)
        self._check_schedules(path)
        self.optimizer.check(f"{path}.optimizer")

    def idle(self) -> dict[str, str]:
        """The fields that change nothing as the others are set, each with the reason."""
        found: dict[str, str] = {}
        if self.optimizer.weight_decay == 0:
            reason = "the optimizer's weight_decay is 0"
            found |= dict.fromkeys(("decay_norms", "undecayed"), reason)
        elif self.decay_norms:
            found["undecayed"] = "decay_norms is true"
        if world_size() == 1:
            found["shard_optimizer"] = "there is one process (torchrun starts several)"
        if self.warmup_steps == 0:
            found |= dict.fromkeys(("warmup_start", "warmup"), "warmup_steps is 0")
        if self.cosine_restarts is not None or self.plateau is not None:
            other = "cosine_restarts" if self.plateau is None else "plateau"
            reason = f"it belongs to the polynomial decay, which {other} replaces"
            found |= dict.fromkeys(_OF_POLYNOMIAL_DECAY, reason)
        return found

    def _check_schedules(self, path: str) -> None:
        """Checks that the plateau rule ends where the cosines begin."""
        cosine, plateau = self.cosine_restarts, self.plateau
        if plateau is not None:
            plateau.check(f"{path}.plateau")
        if cosine is not None:
            cosine.check(f"{path}.cosine_restarts", steps=self.steps)
            require(
                (cosine.from_step > 0) == (plateau is not None),
                f"{path}.cosine_restarts.from_step is {cosine.from_step}; allowed: 0, or, with a "
                f"{path}.plateau, the step at which the plateau rule ends",
            )

    @property
    def plateau_end(self) -> int:
        """The first step whose learning rate the plateau rule does not set."""
        return self.steps if self.cosine_restarts is None else self.cosine_restarts.from_step

    def is_due(self, step: int, every: int) -> bool:
        """Whether what is done every `every` steps, and at the end, is due after `step` updates; 0
        stands for never."""
        return every > 0 and (step % every == 0 or step in (self.steps, *self.extended_from))

    def decay_steps(self, step: int) -> int:
        """The length of the schedule that sets the learning rate of `step`."""
        if self.restart is not None and step >= self.restart.at_step:
            return self.restart.schedule_steps
        ends = (end for end in self.extended_from if step < end)
        return self.schedule_steps or next(ends, self.steps)
