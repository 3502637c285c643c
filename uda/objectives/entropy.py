"""Entropy minimization: predictions on target images become confident.

Sources: "MinEnt", eq. 2 and 3 of Vu et al., "ADVENT", CVPR 2019, arXiv 1811.12833; with
`charbonnier`, section 2.2 of Yang and Soatto, "FDA", CVPR 2020, arXiv 2004.05498. Both divide by
log C.
"""

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.models.upsampled import Logits, whole
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import entropy
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class EntropyConfig(ObjectiveConfig):
    """Settings of `Entropy`."""

    # In nats, 0.001 equals a weight of 0.003 in the paper, whose unit is "share", for 19 classes.
    weight: float = 0.001
    # "nats", as in the experiment log, or the share of the highest entropy, log C.
    unit: Literal["nats", "share"] = "nats"
    # Of the auxiliary head's own entropy, times `weight`; ADVENT: 0.2, with 0.001 for the main one.
    auxiliary_weight: float = 0.0
    # "main": the main head's prediction; "fused": softmax(main + 0.5 * auxiliary), as in the log.
    heads: Literal["main", "fused"] = "main"
    certainty: bool = False  # weigh pixels by their certainty, as in the log: see losses.entropy
    # Exponent of FDA's penalty (e^2 + 1e-8)^eta of a pixel's entropy e; FDA: 2; none: e itself.
    charbonnier: float | None = None
    # "features": logits are brought back to the size of the encoder's deepest map, as FDA computes
    # its entropy before logits are enlarged.
    resolution: Literal["input", "features"] = "input"

    def needs(self) -> frozenset[Need]:
        both = self.heads == "fused" or self.auxiliary_weight > 0
        return frozenset({"target", "auxiliary_head"} if both else {"target"})

    def reads(self) -> frozenset[str]:
        return frozenset({"target"})

    def check(self, path: str) -> None:
        super().check(path)
        require(
            self.auxiliary_weight >= 0,
            f"{path}.auxiliary_weight is {self.auxiliary_weight}; allowed: 0 or more",
        )
        require(
            self.charbonnier is None or self.charbonnier > 0,
            f"{path}.charbonnier is {self.charbonnier}; allowed: none, or an exponent above 0",
        )

    def build(self, num_classes: int) -> "Entropy":
        return Entropy(self)


class Entropy(Objective):
    """Entropy of the target predictions, averaged over the pixels."""

    config: EntropyConfig
    align_corners = False  # of the student, when it resizes logits

    def attach(self, student: Segmenter) -> None:
        self.align_corners = student.align_corners

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        logits: Logits = output.main
        auxiliary = output.auxiliary
        if self.config.heads == "fused":
            assert auxiliary is not None
            logits = output.main.whole() + 0.5 * auxiliary.whole()
        terms = {"entropy": self._entropy(logits, output)}
        if self.config.auxiliary_weight:
            assert auxiliary is not None
            own = self._entropy(auxiliary, output)
            terms["auxiliary"] = self.config.auxiliary_weight * own
        return terms

    def _entropy(self, logits: Logits, output: SegmentationOutput) -> Tensor:
        if self.config.resolution == "features":
            size = output.features.shape[-2:]
            logits = F.interpolate(
                whole(logits), size, mode="bilinear", align_corners=self.align_corners
            )
        return entropy(
            logits,
            certainty=self.config.certainty,
            share=self.config.unit == "share",
            charbonnier=self.config.charbonnier,
        )
