"""Numbers beside the confusion matrix, by name: each published with the sentence that defines it.

Papers print "F1" or "mean IoU" for sums over a data set, means over images and means over batches,
which differ by points. So a preset or `eval_single.py --measures` asks for one of them by name.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

from torch import Tensor

from uda.data.labels import LabelSpace
from uda.metrics import Scores, mean_of_present
from uda.reports import per_class_percent, percent

MeasureName = Literal["f1"]


class NamedMeasure(ABC):
    """What is counted while predictions pass by once."""

    definition: ClassVar[str]  # one sentence, published with every value
    # Then no folder of label maps holds what it needs.
    needs_probabilities: ClassVar[bool] = False

    def __init__(self, label_space: LabelSpace) -> None:
        self.label_space = label_space

    def add(self, predicted: Tensor, labels: Tensor) -> None:
        """Counts one image's pixels: the classes predicted and the labels, both (H, W) integers on
        one device, labels with 255 where nothing is known."""
        return

    def merge(self, other: Self) -> None:
        """Adds what another one of the same kind has counted."""
        return

    def gather(self) -> None:
        """Adds what all other processes have counted."""
        return

    @abstractmethod
    def fact(self, scores: Scores) -> dict[str, object]:
        """The value and whatever belongs to it; `scores` are those of the whole pass."""


class F1(NamedMeasure):
    """Of the confusion matrix, also called Dice coefficient."""

    definition = (
        "percent; per class 2 TP / (2 TP + FP + FN) over all pixels of the data set, averaged over "
        "the classes that are present"
    )

    def fact(self, scores: Scores) -> dict[str, object]:
        f1 = [2 * iou / (1 + iou) for iou in scores.iou]
        return {
            "value": percent(mean_of_present(f1)),
            "definition": self.definition,
            "per_class": per_class_percent(self.label_space.report_names, f1),
        }


MEASURES: Mapping[MeasureName, type[NamedMeasure]] = {"f1": F1}


def build_measures(
    names: Sequence[MeasureName], label_space: LabelSpace
) -> dict[MeasureName, NamedMeasure]:
    """The measures called `names`, with nothing counted yet."""
    return {name: MEASURES[name](label_space) for name in names}
