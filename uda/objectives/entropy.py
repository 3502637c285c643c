"""Entropy minimization: predictions on target images become sure of themselves.

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

    # Paper: 0.001 of the entropy over log C, its share of the highest possible; here: of the nats,
    # as in the experiment log, which for 19 classes is as much as the paper's 0.003.
    weight: float = 0.001
    # Whose entropy: the main head's, or that of the prediction both heads make together,
    # softmax(main + 0.5 * auxiliary), as in the log.
    heads: Literal["main", "fused"] = "main"
    certainty: bool = False  # pixels count by how sure they are, as in the log: see losses.entropy

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
