"""What objectives share that learn a mean teacher's labels of the target images."""

from dataclasses import dataclass

from torch import Tensor

from uda.data.batch import Batch
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import Denominator
from uda.objectives.functional.pseudo_labels import ConfidenceRule, confidence_weights
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class TeacherLabelsConfig(ObjectiveConfig):
    """Settings of `TeacherLabels`: which of the teacher's labels count, and how much."""

    threshold: float = 0.9  # lowest softmax probability of a confident pseudo-label
    confidence: ConfidenceRule = "image_share"  # how confidence becomes the weight of a pixel
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
        require(
            min(self.ignored_rows) >= 0,
            f"{path}.ignored_rows is {self.ignored_rows}; allowed: two numbers of rows, 0 or more",
        )


class TeacherLabels(Objective):
    """Labels of the target images and their weights, from one pass of the teacher per step."""

    config: TeacherLabelsConfig

    def labeled(self, batch: Batch, context: StepContext) -> tuple[Tensor, Tensor]:
        """The teacher's labels (N, H, W) int64 of the target images, and their weights (N, H, W) or
        (N, 1, 1) float: 0 in ignored rows and where `batch.target_valid` is false."""
        pseudo = context.teacher_labels(batch.target_images)
        context.counts.sure(self, pseudo, self.config.threshold)
        weights = confidence_weights(
            pseudo.confidence, self.config.threshold, self.config.confidence
        )
        top, bottom = self.config.ignored_rows
        if top or bottom:
            weights = weights.expand_as(pseudo.confidence).clone()
            weights[:, :top] = 0
            weights[:, max(weights.shape[1] - bottom, 0) :] = 0
        if batch.target_valid is not None:
            weights = weights * batch.target_valid
        return pseudo.labels, weights
