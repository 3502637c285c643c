"""Further measures by name, each published with the sentence that defines it.

Papers print "F1" or "mean IoU" for sums over a data set, means over images and means over batches,
which differ by points. So `evaluation.measures` names the ones to compute.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from uda.evaluation.metrics import ConfusionMatrix, Scores, mean_of_scored
from uda.evaluation.reports import per_class_percent, percent
from uda.evaluation.soft_scores import BATCH_SIZE, SMOOTH, soft_scores
from uda.labels.spaces import LabelSpace
from uda.utilities.distributed import in_dealt_order, sum_over_ranks

MeasureName = Literal["f1", "per_image_union_miou", "soft_batch"]

_UNITS = 2**40  # means over images are counted in units of 1 / _UNITS


class NamedMeasure(ABC):
    """A measure that is counted in one pass over predictions."""

    definition: ClassVar[str]  # one sentence, published with every value
    needs_probabilities: ClassVar[bool] = False  # if so, it cannot be computed from label maps

    def __init__(self, label_space: LabelSpace) -> None:
        self.label_space = label_space

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Counts one image's pixels: the classes predicted and the labels, both (H, W) integers on
        one device; labels of 255 are ignored."""
        return

    def add_soft(self, sums: Tensor) -> None:
        """Counts the same image by the sums of its probabilities (see soft_scores.py); called if
        `needs_probabilities`."""
        return

    def merge(self, other: Self) -> None:
        """Adds the counts of another measure of the same kind."""
        return

    def gather(self) -> None:
        """Adds the counts of all other processes."""
        return

    @abstractmethod
    def fact(self, scores: Scores) -> dict[str, object]:
        """The value, its definition and details; `scores` are those of the whole pass."""


class F1(NamedMeasure):
    """F1 of the confusion matrix, also called Dice coefficient."""

    definition = (
        "percent; per class 2 TP / (2 TP + FP + FN) over all pixels of the data set, averaged over "
        "the classes that are present and scored"
    )

    def fact(self, scores: Scores) -> dict[str, object]:
        f1 = [2 * iou / (1 + iou) for iou in scores.iou]
        return {
            "value": percent(mean_of_scored(f1, self.label_space.not_scored)),
            "definition": self.definition,
            "per_class": per_class_percent(self.label_space.report_names, f1),
        }


class PerImageUnionMiou(NamedMeasure):
    """The ranking measure of the NoonBody challenge: every image has the same weight."""

    definition = (
        "percent; per image, the mean IoU of the scored classes that its labels or its prediction "
        "have, then the mean over images; pixels of a class that is not scored count as misses of "
        "what is predicted there, unlabeled pixels do not count"
    )

    def __init__(self, label_space: LabelSpace) -> None:
        super().__init__(label_space)
        # The sum, in units of 1 / _UNITS, and the number of images: integers have the same sum in
        # every order and with any number of processes.
        self.counts = torch.zeros(2, dtype=torch.int64)

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        # One class more: label maps may have pixels without a class.
        matrix = ConfusionMatrix(self.label_space.num_classes + 1)
        matrix.update(predicted[None], labels[None])
        counts = matrix.counts.cpu()
        hits = counts.diagonal()
        unions = counts.sum(dim=0) + counts.sum(dim=1) - hits
        scored = [c for c in range(self.label_space.num_classes)
                  if c not in self.label_space.not_scored and unions[c] > 0]  # fmt: skip
        if scored:
            mean = (hits[scored].double() / unions[scored]).mean()
            self.counts += torch.tensor([round(float(mean) * _UNITS), 1])

    def merge(self, other: Self) -> None:
        self.counts += other.counts

    def gather(self) -> None:
        self.counts = sum_over_ranks(self.counts)

    def fact(self, scores: Scores) -> dict[str, object]:
        total, images = self.counts.tolist()
        return {
            "value": percent(total / _UNITS / images) if images else None,
            "definition": self.definition,
            "images": images,
        }


class SoftBatch(NamedMeasure):
    """Mean IoU, F1 and loss of probabilities, as segmentation_models prints after an epoch."""

    definition = (
        f"percent, iou_score and f1-score of segmentation_models: probabilities in place of "
        f"predicted classes; per batch of {BATCH_SIZE} images in the order of the data set and per "
        "class (TP + s) / (TP + FP + FN + s) and (2 TP + s) / (2 TP + FP + FN + s) over the "
        f"batch's pixels, s = {SMOOTH:g}, averaged over all classes and then over batches; a class "
        "that a batch neither has nor predicts counts as 1; loss: cross-entropy in nats, averaged "
        "over all labeled pixels"
    )
    needs_probabilities = True

    def __init__(self, label_space: LabelSpace) -> None:
        super().__init__(label_space)
        self.images: list[Tensor] = []  # sums of each image, in the order of the data set

    def add_soft(self, sums: Tensor) -> None:
        self.images.append(sums)

    def merge(self, other: Self) -> None:
        self.images += other.images

    def gather(self) -> None:
        width = 3 * self.label_space.num_classes + 2
        own = torch.stack(self.images) if self.images else torch.zeros(0, width).double()
        self.images = list(in_dealt_order(own))

    def fact(self, scores: Scores) -> dict[str, object]:
        if not self.images:
            return {"value": None, "definition": self.definition}
        soft = soft_scores(torch.stack(self.images))
        return {
            "value": percent(soft.iou),
            "definition": self.definition,
            "f1": percent(soft.f1),
            "loss": round(soft.loss, 6),
            "images": len(self.images),
        }


MEASURES: Mapping[MeasureName, type[NamedMeasure]] = {
    "f1": F1,
    "per_image_union_miou": PerImageUnionMiou,
    "soft_batch": SoftBatch,
}


def build_measures(
    names: Sequence[MeasureName], label_space: LabelSpace
) -> dict[MeasureName, NamedMeasure]:
    """The measures called `names`, with nothing counted yet."""
    return {name: MEASURES[name](label_space) for name in names}
