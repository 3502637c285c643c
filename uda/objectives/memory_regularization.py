"""Memory regularization in vivo: on target images, both heads follow their fused prediction.

Source: Zheng and Yang, IJCAI 2020, arXiv 1912.11164.
"""

from dataclasses import dataclass

from torch import Tensor

from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import memory_regularization


@dataclass(kw_only=True, slots=True)
class MemoryRegularizationConfig(ObjectiveConfig):
    """Settings of `MemoryRegularization`."""

    weight: float = 0.1

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "auxiliary_head"})

    def reads(self) -> frozenset[str]:
        return frozenset({"target"})

    def build(self, num_classes: int) -> "MemoryRegularization":
        return MemoryRegularization(self)


class MemoryRegularization(Objective):
    """KL divergence of each head from the fused prediction."""

    config: MemoryRegularizationConfig

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert output.auxiliary is not None
        return {"kl": memory_regularization(output.main, output.auxiliary)}
