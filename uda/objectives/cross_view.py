"""Cross view: two crops of a target image are pulled to one prediction, pixel by pixel.

The experiment log ran this under the name FixMatch; it is kept to reproduce that row. The pixels of
the two crops are not aligned: pixel (y, x) shows one place in the first crop and another in the
second. A prediction that is the same in both depends on the position in the crop and not on the
image content, and a network that is trained towards it collapses (20.25 mIoU in the log, against
42.9 without). The intended method is `FixMatch`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import kl_to_reference


@dataclass(kw_only=True, slots=True)
class CrossViewConfig(ObjectiveConfig):
    """Settings of `CrossView`."""

    weight: float = 0.1

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "teacher", "second_target_view"})

    def adds(self) -> frozenset[str]:
        return frozenset({"cross_view"})

    def reads(self) -> frozenset[str]:
        return frozenset({"target", "cross_view"})

    def build(self, num_classes: int) -> "CrossView":
        return CrossView(self)


class CrossView(Objective):
    """KL(q || first) + KL(q || second), q = softmax(0.5 * first + second) without gradient.

    First and second are the logits of the target view and of the second target view. The log
    computed q from the student's two predictions of the step; here the teacher makes them, so that
    memory holds one view's graph at a time. With TeacherConfig(momentum=0), the teacher has the
    student's weights of this step, and q differs from the log's only by the student's dropout.
    """

    config: CrossViewConfig

    def __init__(self, config: CrossViewConfig) -> None:
        super().__init__(config)
        self._reference: Tensor | None = None  # q of the current step, (N, C, H, W)

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        second_images = batch.target_second_images
        assert second_images is not None, "checked by validate()"
        assert context.teacher is not None, "checked by validate()"
        with torch.no_grad():
            first, second = context.teacher(batch.target_images), context.teacher(second_images)
            if context.counts.active:
                context.counts.teacher(first.max(dim=1).indices)
            # All views are made before the student's first forward, so q is ready in time.
            self._reference = torch.softmax(0.5 * first + second, dim=1)
        return (View("cross_view", second_images),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert self._reference is not None, "views() is called first"
        term = "kl_first" if view.name == "target" else "kl_second"
        return {term: kl_to_reference(output.logits, self._reference)}

    def after_step(self, context: StepContext) -> None:
        self._reference = None
