"""Self-distillation: a student learns a frozen network's stored labels and its probabilities.

Source: Zhang et al., ProDA, CVPR 2021, arXiv 2101.10979, equation 12: its stages 2 and 3.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uda.augmentation.policies import PolicyName
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import kl_to_prediction, segmentation_loss
from uda.objectives.functional.strong_views import strong_view
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class DistillationConfig(ObjectiveConfig):
    """Settings of `Distillation`; pseudo_label.py has decided which pixels have a label."""

    # The frozen network: that of a snapshot or, with none, the one that the run starts from.
    network: str | None = None
    distillation: float = 1.0  # weight of the divergence from its probabilities
    # "kl": KL(frozen || student), the paper's. "softmax_slip": what ProDA's code computes, which
    # gives its KL a softmax in place of its logarithm, and averages over the classes, too.
    divergence: Literal["kl", "softmax_slip"] = "kl"
    policy: PolicyName | None = "photometric_distortion"  # of the strong view
    hidden: float = 0.25  # side of the square hidden in it, as a share of the shorter side

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "pseudo_labels"})

    def adds(self) -> frozenset[str]:
        return frozenset({"distillation"})

    reads = adds

    def learns_fixed_labels(self) -> bool:
        return True

    def frozen_snapshot(self) -> str | None:
        return self.network

    def check(self, path: str) -> None:
        super().check(path)
        require(
            self.distillation > 0,
            f"{path}.distillation is {self.distillation}; allowed: above 0. For the labels alone: "
            f"--set {path}=pseudo_label",
        )
        require_share(f"{path}.hidden", self.hidden)

    def build(self, num_classes: int) -> "Distillation":
        return Distillation(self)


class Distillation(Objective):
    """Cross-entropy and divergence on a strong view, which the frozen network sees, too."""

    config: DistillationConfig
    frozen: Segmenter

    def attach(self, student: Segmenter) -> None:
        self.frozen = copy.deepcopy(student).requires_grad_(False)

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        images = strong_view(
            batch.target_images,
            policy=self.config.policy,
            hidden=self.config.hidden,
            generators=context.generators("distillation"),
        )
        return (View("distillation", images, batch.target_pseudo_labels),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "checked by validate()"
        context.counts.labeled(self, view.labels, output.main)
        self.frozen.eval()
        with torch.no_grad():
            frozen = self.frozen(view.images)
        if self.config.divergence == "kl":
            divergence = kl_to_prediction(output.main, frozen.main)
        else:
            own, reference = output.logits.softmax(dim=1), frozen.logits.softmax(dim=1)
            divergence = (torch.special.xlogy(reference, reference) - reference * own).mean()
        return {
            "main": segmentation_loss(output, view.labels),
            "distillation": self.config.distillation * divergence,
        }
