"""LossScale: what losses are multiplied by, so that their gradients fit into float16."""

from collections.abc import Sequence
from typing import TypedDict

import torch
from torch import Tensor

_FIRST = 2.0**16
_STEPS_UNTIL_RAISED = 2000


class LossScaleState(TypedDict):
    """What a LossScale needs to continue."""

    value: float
    finite_steps: int


class LossScale:
    """A power of two that follows the gradients: halved in a step whose gradients overflow, doubled
    after 2000 steps without one. Losses are multiplied by `value`, and gradients divided by it.

    Source: the rule and its numbers are those of torch.amp.GradScaler, which skips each optimizer's
    update separately; here a step is skipped as a whole, on every rank.
    """

    def __init__(self) -> None:
        self.value = _FIRST
        self._finite_steps = 0  # since the value last changed

    @torch.no_grad()
    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divides `gradients` by `value`, in place."""
        if gradients:
            torch._foreach_mul_(list(gradients), 1 / self.value)

    def count_finite(self) -> None:
        """To be called after a step whose gradients were finite."""
        self._finite_steps += 1
        if self._finite_steps == _STEPS_UNTIL_RAISED:
            self.value, self._finite_steps = 2 * self.value, 0

    def lower(self) -> bool:
        """Halves `value` after a step whose gradients were not finite. False, and nothing is done,
        at 1: gradients that overflow unscaled are no matter of the scale."""
        if self.value <= 1:
            return False
        self.value, self._finite_steps = self.value / 2, 0
        return True

    def state(self) -> LossScaleState:
        """What `load_state` needs."""
        return {"value": self.value, "finite_steps": self._finite_steps}

    def load_state(self, state: LossScaleState) -> None:
        """Continues as the one whose `state` it is."""
        self.value, self._finite_steps = state["value"], state["finite_steps"]
