"""Information maximization on the target alone: each pixel's prediction becomes sure, and all of
them together do not become one class.

    loss = mean_i H(p_i) + diversity * D(p_mean),    p_mean = mean_i p_i over the batch's pixels

D = -H(p_mean) is the loss of Liang et al., "SHOT", ICML 2020, arXiv 2002.08546 (equation 3). It
wants classes of equal size. In street scenes they are not, so by default D compares p_mean with
the shares of the classes that the network itself predicted before the first step.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import entropy
from uda.utilities.distributed import mean_over_ranks
from uda.utilities.errors import require

_LEAST = torch.finfo(torch.float32).tiny  # share of a class whose logarithm can still be taken


@dataclass(kw_only=True, slots=True)
class InformationMaximizationConfig(ObjectiveConfig):
    """Settings of `InformationMaximization`; SHOT: diversity=1, diversity_rule="entropy"."""

    diversity: float = 0.1  # weight of D; 0: the entropy alone
    # "prior": KL(p_mean || prior), the prior being the first shares; "hinge": only classes that
    # have less than half of their prior are pulled back to it; "entropy": -H(p_mean).
    diversity_rule: Literal["prior", "hinge", "entropy"] = "prior"
    prior_batches: int = 20  # whose predictions are the prior
    # How much of p_mean is that of the steps before, as a few images do not show every class; only
    # the present batch has a gradient.
    momentum: float = 0.0

    def needs(self) -> frozenset[Need]:
        return frozenset({"target"})

    def reads(self) -> frozenset[str]:
        return frozenset({"target"})

    def first_batches(self) -> int:
        return 0 if "prior_batches" in self.idle() else self.prior_batches

    def idle(self) -> dict[str, str]:
        """The fields that change nothing as the others are set, each with the reason."""
        if self.diversity == 0:
            return dict.fromkeys(("diversity_rule", "prior_batches", "momentum"), "diversity is 0")
        if self.diversity_rule == "entropy":
            return {"prior_batches": "diversity_rule is entropy, which has no prior"}
        return {}

    def check(self, path: str) -> None:
        super().check(path)
        require(self.diversity >= 0, f"{path}.diversity is {self.diversity}; allowed: 0 or more")
        require(
            self.prior_batches > 0,
            f"{path}.prior_batches is {self.prior_batches}; allowed: 1 or more",
        )
        require(
            0 <= self.momentum < 1,
            f"{path}.momentum is {self.momentum}; allowed: from 0 up to, not including, 1",
        )

    def build(self, num_classes: int) -> "InformationMaximization":
        return InformationMaximization(self, num_classes)


class InformationMaximization(Objective):
    """Entropy of the target predictions, and the distance of their mean from a prior."""

    config: InformationMaximizationConfig
    prior: Tensor  # (C,) shares of the classes; equal ones until there have been predictions
    before: Tensor  # (C,) p_mean of the steps before; zeros before the first

    def __init__(self, config: InformationMaximizationConfig, num_classes: int) -> None:
        super().__init__(config)
        self.register_buffer("prior", torch.full((num_classes,), 1 / num_classes))
        self.register_buffer("before", torch.zeros(num_classes))

    @torch.no_grad()
    def before_first_step(self, student: Segmenter, batches: Iterable[Batch]) -> None:
        student.eval()
        found = [_mean_prediction(student(batch.target_images).logits) for batch in batches]
        self.prior.copy_(mean_over_ranks(torch.stack(found).mean(0)))

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        terms = {"entropy": entropy(output.main)}
        if self.config.diversity:
            now = _mean_prediction(output.logits)
            own, share = now.detach(), self.config.momentum
            mean = torch.where(self.before.any(), torch.lerp(own, self.before, share), own)
            terms["diversity"] = self.config.diversity * self._distance(mean + (now - own))
            self.before.copy_(mean_over_ranks(mean))
        return terms

    def _distance(self, mean: Tensor) -> Tensor:
        mean, prior = mean.clamp_min(_LEAST), self.prior.clamp_min(_LEAST)
        if self.config.diversity_rule == "entropy":
            return (mean * mean.log()).sum()
        if self.config.diversity_rule == "prior":
            return (mean * (mean / prior).log()).sum()
        half = prior / 2
        return (half * (half / mean).log().clamp_min(0)).sum()


def _mean_prediction(logits: Tensor) -> Tensor:
    """The mean (C,) of softmax(logits) over all pixels of logits (N, C, H, W)."""
    return logits.float().softmax(dim=1).mean(dim=(0, 2, 3))
