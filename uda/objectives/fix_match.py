"""FixMatch: a teacher's confident labels of a target image, learned on a distorted copy of it.

Source: Sohn et al., "FixMatch", NeurIPS 2020, arXiv 2001.07685, pixel by pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from uda.augmentation.jitter import AnyJitter, JitterConfig, jitter
from uda.augmentation.policies import PolicyName, apply_policy
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, StepContext
from uda.objectives.functional.losses import cross_entropy, segmentation_loss
from uda.objectives.functional.pseudo_labels import ConfidenceRule
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class FixMatchConfig(TeacherLabelsConfig):
    """Settings of `FixMatch`. The strong view is the weak one after `policy`, then `jitter`."""

    threshold: float = 0.95  # the paper's tau
    confidence: ConfidenceRule = "pixel"
    policy: PolicyName | None = None
    jitter: AnyJitter | None = field(default_factory=JitterConfig)
    auxiliary_weight: float = 0.0  # of the auxiliary head's loss; 0 leaves that head out

    def needs(self) -> frozenset[Need]:
        needs = super().needs()
        return needs | {"auxiliary_head"} if self.auxiliary_weight else needs

    def adds(self) -> frozenset[str]:
        return frozenset({"fix_match"})

    def reads(self) -> frozenset[str]:
        return frozenset({"fix_match"})

    def check(self, path: str) -> None:
        super().check(path)
        require(
            self.auxiliary_weight >= 0,
            f"{path}.auxiliary_weight is {self.auxiliary_weight}; allowed: 0 or more",
        )
        require(
            self.policy is not None or self.jitter is not None,
            f"{path}.policy and jitter are both none: the strong view would be the weak one; set "
            f"one of them, or remove the objective with --set {path}=none",
        )

    def idle(self) -> dict[str, str]:
        return super().idle() | {"over": "the teacher labels every pixel"}

    def build(self, num_classes: int) -> "FixMatch":
        return FixMatch(self)


class FixMatch(TeacherLabels):
    """The teacher labels the target view (crop and mirror only); the student learns the strong one.

    The strong view has the same pixels in the same places, so the teacher's labels are its labels.
    Paper: also shifts, rotations and Cutout; here: none of them, because the labels would have to
    move along.
    """

    config: FixMatchConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        labels, weights = self.labeled(batch, context)
        generators = context.generators("fix_match")
        images = batch.target_images
        if self.config.policy is not None:
            images = _with_policy(images, self.config.policy, generators)
        if self.config.jitter is not None:
            common = context.batch_generator("fix_match_jitter")
            images = jitter(images, self.config.jitter, generators, common)
        return (View("fix_match", images, labels, weights),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "this objective's own view is labeled"
        # Every pixel has a label, so the mean is over all of them, as in the paper.
        main = segmentation_loss(output, view.labels, weights=view.weights, over=self.config.over)
        terms = {"main": main}
        if self.config.auxiliary_weight:
            assert output.auxiliary is not None
            auxiliary = cross_entropy(output.auxiliary, view.labels, weights=view.weights)
            terms["auxiliary"] = self.config.auxiliary_weight * auxiliary
        return terms


def _with_policy(
    images: Tensor, policy: PolicyName, generators: Sequence[torch.Generator]
) -> Tensor:
    """Images (N, 3, H, W) float in [0, 1], each distorted on its own, in their memory format."""
    changed = torch.empty_like(images)
    for image, result, generator in zip(images, changed, generators, strict=True):
        # Policies are defined on bytes.
        levels = (image * 255).round().to(torch.uint8)
        result.copy_(apply_policy(levels, policy, generator)).div_(255)
    return changed
