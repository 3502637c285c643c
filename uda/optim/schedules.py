"""Values that change from step to step: learning rate and teacher momentum."""

import math
from dataclasses import dataclass
from typing import Literal

from uda.utilities.errors import InputError, require

Warmup = Literal["towards_1", "up_to_1", "of_decay"]


@dataclass(kw_only=True, slots=True)
class CosineRestartsConfig:
    """The learning rate falls along a cosine and restarts at the base rate, again and again.

    Source: Loshchilov and Hutter, "SGDR", ICLR 2017, arXiv 1608.03983.
    """

    period: int = 1000  # steps of the first cosine
    growth: int = 1  # each cosine is this many times as long as the previous one
    floor: float = 0.0  # share of the base rate at the end of each cosine
    from_step: int = 0  # in earlier steps, TrainConfig.plateau sets the rate

    def check(self, path: str, *, steps: int) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        for name in ("period", "growth"):
            value = getattr(self, name)
            require(value >= 1, f"{path}.{name} is {value}; allowed: 1 or more")
        require(0 <= self.floor < 1, f"{path}.floor is {self.floor}; allowed: 0 up to, not "
                "including, 1")  # fmt: skip
        require(
            0 <= self.from_step < steps,
            f"{path}.from_step is {self.from_step}; it must be below the run's {steps} steps",
        )


def cosine_restarts_factor(step: int, config: CosineRestartsConfig) -> float:
    """The factor of the base learning rate at `step` of the cosines, counted from `from_step`."""
    period = config.period
    while step >= period:
        step -= period
        period *= config.growth
    return config.floor + (1 - config.floor) * (1 + math.cos(math.pi * step / period)) / 2


def learning_rate_factor(
    step: int,
    *,
    steps: int,
    warmup_steps: int = 0,
    warmup_start: float = 0.1,
    warmup: Warmup = "towards_1",
    power: float = 0.9,
    final: float = 0.0,
) -> float:
    """The factor of the base learning rate at `step` (0-based) of a run of `steps`.

    Linear from `warmup_start` during `warmup_steps`, then (1 - step / steps) ** power from 1 down
    to `final`. The decay counts from step 0, not from the end of the warm-up: with a warm-up of
    5000 of 250000 steps, it starts at 0.982, as in the experiment log.

    `warmup`: "towards_1": 1 would be the factor of the step after the warm-up
    (layumi/Seg-Uncertainty@6fce9ea); "up_to_1": it is that of the last step of the warm-up
    (tue-mps/vfm-uda@e154d8f5); "of_decay": as "towards_1", and a multiple of the decayed rate,
    which so has no jump (mmcv, lhoyer/DAFormer@e6f6e041).
    Raises InputError beyond the end of the schedule.
    """
    if not 0 <= step <= steps:
        raise InputError(
            f"step {step} is outside the schedule of 0 to {steps} steps: increase train.steps"
        )
    decayed = float(final + (1 - final) * (1 - step / steps) ** power)
    if step >= warmup_steps:
        return decayed
    length = max(1, warmup_steps - 1) if warmup == "up_to_1" else warmup_steps
    risen = warmup_start + (1 - warmup_start) * step / length
    return risen * decayed if warmup == "of_decay" else risen


def momentum_ramp(updates: int, *, momentum: float) -> float:
    """The teacher's momentum after `updates` earlier updates: 1/2, 2/3, 3/4, ... up to `momentum`;
    0 before the first of them, at -1.

    At first, the teacher follows its student fast, so that its initial weights soon do not count.
    """
    return min(1 - 1 / (updates + 2), momentum)
