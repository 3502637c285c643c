"""A learning rate that falls whenever what it watches has stopped getting better."""

import math
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor

from uda.utilities.distributed import mean_over_ranks
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class PlateauConfig:
    """The rule of torch's ReduceLROnPlateau with a relative threshold, asked at each evaluation."""

    # The evaluation's mIoU, which has to rise, or the mean since the last evaluation of the loss on
    # labels that stay as they are, which has to fall. What a discriminator or a teacher is asked
    # for has no part in it: they move along with the student.
    watches: Literal["miou", "loss"] = "loss"
    patience: int = 10  # evaluations in a row without a new best that change nothing yet
    factor: float = 0.1  # of the rate when there is one more
    threshold: float = 1e-4  # share of the best by which a new best has to differ from it

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(self.patience >= 0, f"{path}.patience is {self.patience}; allowed: 0 or more")
        require(0 < self.factor < 1, f"{path}.factor is {self.factor}; allowed: between 0 and 1")
        require(
            0 <= self.threshold < 1,
            f"{path}.threshold is {self.threshold}; allowed: 0 up to, not including, 1",
        )


class PlateauState(TypedDict):
    """All that `Plateau` remembers."""

    best: float | None  # of what is watched; None before the first evaluation
    bad: int  # evaluations in a row since the last best, or since the last reduction
    factor: float  # of the base rate
    loss: float  # the sum since the last evaluation
    losses: int  # how many it is a sum of


class Plateau:
    """What the rule has seen, and the factor of the base learning rate that it has come to."""

    def __init__(self, config: PlateauConfig) -> None:
        self.config = config
        self.best: float | None = None
        self.bad = 0
        self.factor = 1.0
        # Numbers of 64 bits on the device of the losses: no step waits to read one.
        self._loss: Tensor | float = 0.0
        self._losses = 0

    def add(self, losses: list[Tensor]) -> None:
        """Counts a step whose terms on fixed labels are `losses`, scalars.

        Every process adds the mean of all, so that each remembers the same.
        """
        if self.config.watches == "loss" and losses:
            self._loss = self._loss + mean_over_ranks(torch.stack(losses).sum()).double()
            self._losses += 1

    def observe(self, miou: float) -> float:
        """Takes note of an evaluation, whose mean IoU is `miou`; what was watched of it.

        NaN is no new best, as in torch.
        """
        value = miou if self.config.watches == "miou" else self._mean_loss()
        self._loss, self._losses = 0.0, 0
        if self._is_better(value):
            self.best, self.bad = value, 0
        else:
            self.bad += 1
        if self.bad > self.config.patience:
            self.factor *= self.config.factor
            self.bad = 0
        return value

    def _mean_loss(self) -> float:
        return float(self._loss) / self._losses if self._losses else math.nan

    def _is_better(self, value: float) -> bool:
        threshold = self.config.threshold
        if self.config.watches == "miou":
            best = -math.inf if self.best is None else self.best
            return value > best * (1 + threshold)
        best = math.inf if self.best is None else self.best
        return value < best * (1 - threshold)

    def state(self) -> PlateauState:
        """What `load_state` needs to go on as if nothing had happened."""
        return PlateauState(
            best=self.best,
            bad=self.bad,
            factor=self.factor,
            loss=float(self._loss),
            losses=self._losses,
        )

    def load_state(self, state: PlateauState) -> None:
        """Takes over what `state` returned in another process."""
        self.best, self.bad, self.factor = state["best"], state["bad"], state["factor"]
        self._loss, self._losses = state["loss"], state["losses"]
