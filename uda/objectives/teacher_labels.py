"""What objectives share that learn a mean teacher's labels of the target images."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from uda.data.batch import Batch, View
from uda.labels.spaces import IGNORE_INDEX
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.class_thresholds import (
    AdaptiveConfig,
    adapted_thresholds,
    class_balanced_labels,
    class_balanced_thresholds,
)
from uda.objectives.functional.losses import Denominator, segmentation_loss
from uda.objectives.functional.pseudo_labels import (
    ConfidenceRule,
    PseudoLabels,
    confidence_weights,
)
from uda.utilities.distributed import of_all_ranks
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class TeacherLabelsConfig(ObjectiveConfig):
    """Settings of `TeacherLabels`: which of the teacher's labels count, and how much."""

    threshold: float = 0.9  # lowest softmax probability of a confident pseudo-label
    # How confidence becomes the weight of a pixel. "class_balanced" (CBST): every class has a
    # threshold that its most confident pixels of the batch reach; "instance_adaptive" (IAST): it
    # has one that follows its confidence from step to step. See class_thresholds.py.
    confidence: ConfidenceRule = "image_share"
    portion: float = 0.2  # of each class's pixels, with "class_balanced"
    adaptive: AdaptiveConfig = field(default_factory=AdaptiveConfig)  # with "instance_adaptive"
    # Rows at the top and at the bottom of the crop whose labels have weight 0: what DAFormer does
    # about the sky and the car's own hood.
    ignored_rows: tuple[int, int] = (0, 0)
    # The pixels that the loss is averaged over; see `cross_entropy`.
    over: Denominator = "labeled"

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "teacher"})

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.threshold", self.threshold)
        require_share(f"{path}.portion", self.portion)
        require(
            min(self.ignored_rows) >= 0,
            f"{path}.ignored_rows is {self.ignored_rows}; allowed: two numbers of rows, 0 or more",
        )

    def idle(self) -> dict[str, str]:
        users = {"portion": "class_balanced", "adaptive": "instance_adaptive"}
        found = {
            name: f"confidence is {self.confidence}, not {rule}"
            for name, rule in users.items()
            if self.confidence != rule
        }
        if self.confidence in users.values():
            found["threshold"] = f"with confidence {self.confidence}, every class has its own"
        return found


class TeacherLabels(Objective):
    """Labels of the target images and their weights, from one pass of the teacher per step."""

    config: TeacherLabelsConfig
    thresholds: Tensor | None

    def __init__(self, config: TeacherLabelsConfig) -> None:
        super().__init__(config)
        thresholds = None
        if config.confidence == "instance_adaptive":
            # As many as there can be classes: how many there are is not known here.
            thresholds = torch.full((IGNORE_INDEX,), config.adaptive.start, dtype=torch.float64)
        self.register_buffer("thresholds", thresholds)

    def labeled(self, batch: Batch, context: StepContext) -> tuple[Tensor, Tensor]:
        """The labels (N, H, W) int64 of the target images that the teacher gives them, and their
        weights (N, H, W) or (N, 1, 1) float: 0 in ignored rows and where `batch.target_valid` is
        false. To be called once per step, as thresholds may move."""
        pseudo, threshold = self._judged(batch.target_images, context)
        context.counts.sure(self, pseudo, threshold)
        weights = confidence_weights(pseudo.confidence, threshold, self.config.confidence)
        top, bottom = self.config.ignored_rows
        if top or bottom:
            weights = weights.expand_as(pseudo.confidence).clone()
            weights[:, :top] = 0
            weights[:, max(weights.shape[1] - bottom, 0) :] = 0
        if batch.target_valid is not None:
            weights = weights * batch.target_valid
        return pseudo.labels, weights

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "the views of such objectives are labeled"
        loss = segmentation_loss(output, view.labels, weights=view.weights, over=self.config.over)
        return {"main": loss}

    def _judged(self, images: Tensor, context: StepContext) -> tuple[PseudoLabels, float]:
        """The teacher's labels with what is compared with a threshold, and that threshold: their
        confidence or, where each class has a threshold of its own, their quotient and 1."""
        pseudo = context.teacher_labels(images)
        if self.config.confidence not in ("class_balanced", "instance_adaptive"):
            return pseudo, self.config.threshold
        logits = context.teacher_logits(images)
        count = logits.shape[1]
        labels = of_all_ranks(pseudo.labels.flatten())
        confidence = of_all_ranks(pseudo.confidence.flatten())
        if self.thresholds is None:
            portion = self.config.portion
            thresholds = class_balanced_thresholds(labels, confidence, count, portion=portion)
            return class_balanced_labels(logits.softmax(dim=1), thresholds), 1.0
        own = self.thresholds[:count]
        own.copy_(adapted_thresholds(own, labels, confidence, self.config.adaptive))
        return pseudo._replace(confidence=pseudo.confidence / own[pseudo.labels]), 1.0
