"""From predictions and labels to a confusion matrix, and from that to scores."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uda.labels.class_sets import ClassSet
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import InputError


class ConfusionMatrix:
    """Counts of pixels by label and prediction.

    counts: (C, C) int64, row = label, column = prediction. On `device`, or else on the device of
    the first predictions. float32 counts would stop growing at 16.8 million pixels, eight images.
    """

    def __init__(self, num_classes: int, *, device: torch.device | None = None) -> None:
        self.num_classes = num_classes
        self.counts = torch.zeros(num_classes, num_classes, dtype=torch.int64, device=device)
        self._device = device

    def update(self, predictions: Tensor, labels: Tensor) -> None:
        """Counts the pixels of `predictions` against `labels`, both (N, H, W) integers.

        Labels of 255 are not counted. Raises InputError when the sizes differ, when a prediction
        is outside 0..C-1, or when a label is neither in 0..C-1 nor 255.
        """
        self._check(predictions, labels)
        if self._device is None:
            self._device = predictions.device
            self.counts = self.counts.to(predictions.device)
        # Ignored pixels go to an extra row, which is cheaper than gathering the others.
        rows = labels.clamp(max=self.num_classes).long()
        cells = rows.mul_(self.num_classes).add_(predictions).flatten()
        size = (self.num_classes + 1, self.num_classes)
        counts = torch.bincount(cells, minlength=size[0] * size[1]).view(size)
        self.counts += counts[: self.num_classes].to(self._device)

    def _check(self, predictions: Tensor, labels: Tensor) -> None:
        if predictions.shape != labels.shape:
            raise InputError(
                f"predictions {tuple(predictions.shape)} and labels {tuple(labels.shape)} differ "
                "in size: resize the logits to the labels, never the labels"
            )
        for name, values in (("predictions", predictions), ("labels", labels)):
            if values.is_floating_point():
                raise InputError(f"{name} must be integer train ids, got {values.dtype}")
        last = self.num_classes - 1
        _refuse(predictions, f"predictions outside 0..{last}", last)
        wanted = f"labels outside 0..{last} that are not {IGNORE_INDEX}"
        _refuse(labels.where(labels != IGNORE_INDEX, 0), wanted, last)


def _refuse(values: Tensor, what: str, last: int) -> None:
    """Raises InputError when a value is outside 0..last."""
    if not values.numel():
        return
    lowest, highest = torch.stack(torch.aminmax(values)).tolist()  # one wait for a GPU
    if lowest < 0 or highest > last:
        strangers = values[(values < 0) | (values > last)].unique().tolist()
        shown = ", ".join(str(value) for value in strangers[:5])
        raise InputError(
            f"{what}: {shown}{', ...' if len(strangers) > 5 else ''}; both must be train ids of "
            "the same classes: map raw label ids first"
        )


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a confusion matrix, each a fraction in [0, 1]."""

    iou: tuple[float, ...]  # of each class; NaN if neither labels nor predictions have it
    miou: float  # mean over the classes that are scored and not NaN
    pixel_accuracy: float  # share of the labeled pixels that are right
    absent: tuple[str, ...]  # names of the classes whose IoU is NaN
    # Pixels, row = label, column = prediction; where the rest was counted, it is the last of both.
    confusion: tuple[tuple[int, ...], ...]
    # Train ids of `LabelSpace.unscored`: they have an IoU and an accuracy, but are in no mean.
    unscored: tuple[int, ...] = ()

    @property
    def accuracy(self) -> tuple[float, ...]:
        """Recall of each class: the share of the pixels labeled as it that are predicted as it; NaN
        if there are none."""
        rows = self.confusion[: len(self.iou)]
        return tuple(_ratio(row[index], sum(row)) for index, row in enumerate(rows))

    @property
    def mean_accuracy(self) -> float:
        """Mean of `accuracy` over the classes that are scored and not NaN."""
        return mean_of_scored(self.accuracy, self.unscored)


def scores(
    matrix: ConfusionMatrix, classes: Sequence[str], *, unscored: Sequence[int] = ()
) -> Scores:
    """The scores of `matrix`, whose rows are named `classes`. The train ids `unscored` are left out
    of the means, but their pixels count: a scored class predicted there has a larger union.

    IoU = true positives / (labeled or predicted as the class), over all counted pixels at once. A
    matrix may have one class more than there are names: the rest, which is not scored, but enlarges
    the union of a class predicted there or missed for it. Raises InputError for any other number of
    names.
    """
    scored = len(classes)
    if matrix.num_classes not in (scored, scored + 1):
        raise InputError(
            f"{scored} class names for {matrix.num_classes} classes; allowed: one for each, or for "
            "each but the last, which is then the rest"
        )
    counts: list[list[int]] = matrix.counts.tolist()
    correct = [row[index] for index, row in enumerate(counts)][:scored]
    labeled = [sum(row) for row in counts][:scored]
    predicted = [sum(column) for column in zip(*counts, strict=True)][:scored]
    unions = [
        rows + columns - hits
        for rows, columns, hits in zip(labeled, predicted, correct, strict=True)
    ]
    iou = tuple(_ratio(hits, union) for hits, union in zip(correct, unions, strict=True))
    return Scores(
        iou=iou,
        miou=mean_of_scored(iou, unscored),
        pixel_accuracy=_ratio(sum(correct), sum(labeled)),
        absent=tuple(name for name, union in zip(classes, unions, strict=True) if union == 0),
        confusion=tuple(tuple(row) for row in counts),
        unscored=tuple(unscored),
    )


def nothing_scored(space: LabelSpace) -> Scores:
    """The scores of no image: every one is NaN."""
    return scores(ConfusionMatrix(space.num_classes), space.report_names)


def set_miou(scores: Scores, class_set: ClassSet) -> float:
    """Mean IoU, a fraction, over the classes of a set that are not NaN; NaN when all of them are.

    The scores of a restricted set have only its classes (see `ClassSet.positions`), all others
    those of the whole label space.
    """
    if class_set.restricted:
        assert len(scores.iou) == len(class_set.classes), "a restricted set has its own matrix"
        return scores.miou
    return mean_of_present(scores.iou[train_id] for train_id in class_set.classes)


def mean_of_present(values: Iterable[float]) -> float:
    """The mean of the values that are not NaN; NaN when there are none."""
    present = [value for value in values if not math.isnan(value)]
    return _ratio(sum(present), len(present))  # in this order, as cityscapesScripts does


def mean_of_scored(values: Sequence[float], unscored: Sequence[int]) -> float:
    """The mean of the values, by train id, that are not NaN and not of an `unscored` class."""
    return mean_of_present(v for index, v in enumerate(values) if index not in unscored)


def _ratio(part: float, whole: int) -> float:
    """part / whole; NaN when `whole` is 0."""
    return part / whole if whole else math.nan
