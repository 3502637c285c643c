"""A learning rate that falls when the watched score or loss has stopped improving."""

import math
from dataclasses import dataclass
from typing import Literal, TypedDict

import torch
from torch import Tensor

from uda.utilities.distributed import mean_over_ranks
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class PlateauConfig:
    """torch's ReduceLROnPlateau with a relative threshold, applied at each evaluation."""

    # "miou": the evaluation's mIoU, which has to rise. "loss": the mean, since the last evaluation,
    # of the loss on labels that do not change, which has to fall. Losses of discriminators and of
    # a teacher's labels do not count: they change along with the student.
    watches: Literal["miou", "loss"] = "loss"
    patience: int = 10  # evaluations in a row without a new best before the rate falls
    factor: float = 0.1  # of the rate at the next one
    threshold: float = 1e-4  # share of the best by which a new best has to be better

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(self.patience >= 0, f"{path}.patience is {self.patience}; allowed: 0 or more")
        require(0 < self.factor < 1, f"{path}.factor is {self.factor}; allowed: between 0 and 1")
        require(
            0 <= self.threshold < 1,
            f"{path}.threshold is {self.threshold}; allowed: 0 up to, not including, 1",
        )


class PlateauState(TypedDict):
    """What `Plateau` stores."""

    best: float | None  # watched value; None before the first evaluation
    bad: int  # evaluations in a row since the last best, or since the last reduction
    factor: float  # of the base rate
    loss: float  # the sum since the last evaluation
    losses: int  # how many it is a sum of


class Plateau:
    """The state of the rule, and its current factor of the base learning rate."""

    def __init__(self, config: PlateauConfig) -> None:
        self.config = config
        self.best: float | None = None
        self.bad = 0
        self.factor = 1.0
        # float64, on the device of the losses: adding one does not synchronize.
        self._loss: Tensor | float = 0.0
        self._losses = 0

    def add(self, losses: list[Tensor]) -> None:
        """Counts a step whose terms on fixed labels are `losses`, scalars.

        Every process adds the mean over all processes, so that all have the same state.
        """
        if self.config.watches == "loss" and losses:
            self._loss = self._loss + mean_over_ranks(torch.stack(losses).sum()).double()
            self._losses += 1

    def observe(self, miou: float) -> float:
        """Applies the rule after an evaluation with mean IoU `miou`. Returns the watched value.

        NaN is not a new best, as in torch.
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
        """What `load_state` needs to continue exactly."""
        return PlateauState(
            best=self.best,
            bad=self.bad,
            factor=self.factor,
            loss=float(self._loss),
            losses=self._losses,
        )

    def load_state(self, state: PlateauState) -> None:
        """Restores what `state` returned in another process."""
        self.best, self.bad, self.factor = state["best"], state["bad"], state["factor"]
        self._loss, self._losses = state["loss"], state["losses"]
