"""CutMix across domains: a box of a target image, labeled by a mean teacher, in a source image.

Source: Yun et al., "CutMix", ICCV 2019, arXiv 1905.04899; for segmentation French et al., BMVC
2020, arXiv 1906.01916.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, StepContext
from uda.objectives.functional.losses import ClassBalance, segmentation_loss
from uda.objectives.functional.mixing import mix_domains, random_boxes
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.utilities.errors import require_share


@dataclass(kw_only=True, slots=True)
class CutMixConfig(TeacherLabelsConfig):
    """Settings of `CutMix`."""

    # Where the labels in the box come from. "ground_truth" makes the run a supervised one, as
    # in the experiment log.
    labels: Literal["teacher", "ground_truth"] = "teacher"
    one_box_per_batch: bool = False  # the same box in every image, as in the experiment log
    jitter: AnyJitter | None = None  # of the mixed image
    class_balance: bool = False  # as in SupervisedConfig, by the mixed labels
    hardest: float = 1.0  # as in SupervisedConfig, of the mixed image's pixels

    def needs(self) -> frozenset[Need]:
        labels: Need = "teacher" if self.labels == "teacher" else "target_ground_truth"
        return frozenset({"source", "target", labels, "equal_crops"})

    def adds(self) -> frozenset[str]:
        return frozenset({"cut_mix"})

    def reads(self) -> frozenset[str]:
        return frozenset({"cut_mix"})

    def learns_fixed_labels(self) -> bool:
        return self.labels == "ground_truth"

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.hardest", self.hardest)

    def idle(self) -> dict[str, str]:
        if self.labels == "teacher":
            return super().idle()
        names = ("threshold", "confidence", "portion", "adaptive", "ignored_rows")
        return dict.fromkeys(names, "ground truth has no confidence")

    def build(self, num_classes: int) -> "CutMix":
        return CutMix(self, num_classes)


class CutMix(TeacherLabels):
    """One box per image, a third of its area on average, comes from the target."""

    config: CutMixConfig

    def __init__(self, config: CutMixConfig, num_classes: int) -> None:
        super().__init__(config)
        self.balance = ClassBalance(num_classes) if config.class_balance else None

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        generators = context.generators("cut_mix")
        labels, weights = self._target_labels(batch, context)
        view = mix_domains(
            batch,
            labels,
            name="cut_mix",
            from_source=~self._boxes(batch, context, generators),
            target_weights=weights,
        )
        if self.config.jitter is not None:
            common = context.batch_generator("cut_mix_jitter")
            images = jitter(view.images, self.config.jitter, generators, common)
            view = replace(view, images=images)
        return (view,)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "this objective's own view is labeled"
        loss = segmentation_loss(
            output,
            view.labels,
            weights=view.weights,
            class_weights=None if self.balance is None else self.balance(view.labels),
            hardest=self.config.hardest,
            over=self.config.over,
        )
        return {"main": loss}

    def _target_labels(self, batch: Batch, context: StepContext) -> tuple[Tensor, Tensor]:
        """Labels (N, H, W) of the target images, and their weights, (N, 1, 1) or (N, H, W)."""
        if self.config.labels == "ground_truth":
            assert batch.target_ground_truth is not None, "checked by validate()"
            labels = batch.target_ground_truth
            return labels, torch.ones(len(labels), 1, 1, device=labels.device)
        return self.labeled(batch, context)

    def _boxes(
        self, batch: Batch, context: StepContext, generators: list[torch.Generator]
    ) -> Tensor:
        """The pixels (N, H, W) bool that come from the target."""
        count, height, width = batch.source_labels.shape
        if self.config.one_box_per_batch:
            generators = [context.batch_generator("cut_mix")]
        boxes = random_boxes((height, width), generators, device=batch.source_labels.device)
        return boxes.expand(count, -1, -1)
