"""Entropy minimization: predictions on target images become confident.

Source: Vu et al., "ADVENT", CVPR 2019, arXiv 1811.12833.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import entropy


@dataclass(kw_only=True, slots=True)
class EntropyConfig(ObjectiveConfig):
    """Settings of `Entropy`."""

    # Paper: 0.001 times the entropy divided by log C; here: times the entropy in nats, as in the
    # experiment log, which for 19 classes equals a weight of 0.003 in the paper.
    weight: float = 0.001
    # "main": the main head's prediction; "fused": softmax(main + 0.5 * auxiliary), as in the log.
    heads: Literal["main", "fused"] = "main"
    certainty: bool = False  # weigh pixels by their certainty, as in the log: see losses.entropy

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "auxiliary_head"} if self.heads == "fused" else {"target"})

    def reads(self) -> frozenset[str]:
        return frozenset({"target"})

    def build(self, num_classes: int) -> "Entropy":
        return Entropy(self)


class Entropy(Objective):
    """Entropy of the target predictions, in nats, averaged over the pixels."""

    config: EntropyConfig

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        logits = output.logits
        if self.config.heads == "fused":
            assert output.auxiliary_logits is not None
            logits = logits + 0.5 * output.auxiliary_logits
        return {"entropy": entropy(logits, certainty=self.config.certainty)}
