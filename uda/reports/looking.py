"""Labeled images seen by a network, and by another one: counts of pixels, and pictures."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image
from torch import Tensor

from uda.data.samples import Sample, evenly_spaced
from uda.data.training import open_labeled_split
from uda.evaluation.evaluate import predictions, protocol_line
from uda.evaluation.inference import Prediction
from uda.evaluation.views import Views
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.prediction.opened import OpenedNetwork
from uda.reports.pictures import PictureBudget
from uda.utilities.errors import require

BINS = 15  # of confidence, as in Guo et al.
_LEVELS = 200 * BINS  # of confidence
_OF_PHOTO = 2.5  # parts of the room for pictures; a map takes one
_RIGHT, _WRONG, _UNLABELED = range(3)
_ERROR_COLORS = ((225, 225, 230), (200, 0, 40), (0, 0, 0))
_GRAYS = tuple((level, level, level) for level in range(0, 256, 17))

Seen = Iterable[tuple[Views, Prediction]]
Progress = Callable[[Seen], Seen]


class Compared(NamedTuple):
    """One image, its labels, and what was predicted for it."""

    stem: str
    image: npt.NDArray[np.uint8]  # (h, w, 3), as the network read it
    labels: npt.NDArray[np.uint8]  # (H, W) train ids
    predicted: npt.NDArray[np.uint8]  # (H, W)
    confidence: npt.NDArray[np.float32]  # (H, W)
    other: npt.NDArray[np.uint8] | None  # (H, W), the other network's


@dataclass(slots=True)
class Looked:
    """What was counted over images, and their pictures."""

    protocol: str
    available: int  # images of the split
    space: LabelSpace
    unscored: tuple[int, ...]  # classes that are in no mean
    stems: list[str] = field(default_factory=list)
    counts: list[npt.NDArray[np.int64]] = field(default_factory=list)  # (C, C) of each image
    pictures: list[dict[str, Any]] = field(default_factory=list)
    left_out: int = 0  # pictures for which the page has no room
    # (BINS, 3): pixels, their summed confidence, those that are right
    confidence: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((BINS, 3)))


def look_at(
    network: OpenedNetwork,
    other: OpenedNetwork | None,
    *,
    count: int,
    workers: int = 0,
    progress: Callable[[int], Progress] = lambda total: iter,
) -> Looked:
    """Up to `count` images of the split that `network` is scored on, evenly spaced, each network
    by its own protocol. Raises InputError when the data cannot be used, or the networks do not
    predict the same classes at the same size.
    """
    space, config = network.snapshot.label_space, network.config
    if other is not None:
        require(
            other.snapshot.label_space.classes == space.classes,
            f"--against has the classes of {other.snapshot.label_space.name}, the run those of "
            f"{space.name}: give a network of the same classes",
        )
    every = open_labeled_split(network.root, config.dataset, config.split, label_space=space)
    chosen = evenly_spaced(every, count)
    found = _compared(network, other, chosen, workers=workers, progress=progress(len(chosen)))
    theirs = every[0].space
    lacking = () if theirs is None else theirs.not_scored
    return looked_at(
        found,
        space,
        len(chosen),
        protocol_line(config),
        available=len(every),
        unscored=tuple(sorted({*space.not_scored, *lacking})),
    )


def looked_at(
    found: Iterable[Compared],
    space: LabelSpace,
    count: int,
    protocol: str,
    *,
    available: int,
    unscored: tuple[int, ...] = (),
) -> Looked:
    """The counts and pictures of `found`, `count` images of those `available`."""
    looked = Looked(protocol, available, space, unscored)
    budget = PictureBudget((_OF_PHOTO + 5) * count)
    for image in found:
        looked.stems.append(image.stem)
        looked.counts.append(_counts(image, space.num_classes))
        looked.confidence += _by_confidence(image)
        pictures = _pictures(image, space, budget)
        if pictures is None:
            looked.left_out += 1
        else:
            looked.pictures.append(pictures | _order(image, looked.counts[-1]))
    return looked


def _compared(
    network: OpenedNetwork,
    other: OpenedNetwork | None,
    samples: Sequence[Sample],
    *,
    workers: int,
    progress: Progress,
) -> Iterator[Compared]:
    def seen_by(opened: OpenedNetwork) -> Iterator[tuple[Views, Prediction]]:
        return predictions(
            opened.network,
            samples,
            config=opened.config,
            label_space=network.snapshot.label_space,
            workers=workers,
            confidence=True,
        )

    theirs = None if other is None else seen_by(other)
    for views, prediction in progress(seen_by(network)):
        assert views.labels is not None, "samples of a labeled split have labels"
        assert prediction.confidence is not None, "it was requested"
        labels = views.labels.numpy()
        beside = None
        if theirs is not None:
            beside = _small(next(theirs)[1].labels)
            require(
                beside.shape == labels.shape,
                "the two networks are compared with labels of different sizes: their protocols "
                "differ; give --against a snapshot of the same protocol",
            )
        yield Compared(
            views.stem,
            views.images[0].permute(1, 2, 0).numpy(),
            labels,
            _small(prediction.labels),
            prediction.confidence.cpu().numpy(),
            beside,
        )


def _small(labels: Tensor) -> npt.NDArray[np.uint8]:
    """Train ids as bytes."""
    found: npt.NDArray[np.uint8] = labels.cpu().numpy().astype(np.uint8)
    return found


def _counts(image: Compared, classes: int) -> npt.NDArray[np.int64]:
    """The (C, C) confusion matrix of one image. Cells are numbered in 16 bits, which takes a fifth
    of the time that 64 do: the largest number is 255 * 254 - 1."""
    cells = np.minimum(image.labels, classes).astype(np.uint16)
    cells *= classes
    cells += image.predicted
    counts = np.bincount(cells.ravel(), minlength=(classes + 1) * classes)
    return counts.reshape(classes + 1, classes)[:classes]


def _by_confidence(image: Compared) -> npt.NDArray[np.float64]:
    """(BINS, 3) of one image; see `Looked.confidence`. Confidence is rounded to 1/_LEVELS, so that
    one pass counts the pixels."""
    levels = (image.confidence * np.float32(_LEVELS) + np.float32(0.5)).astype(np.uint16)
    np.minimum(levels, _LEVELS, out=levels)
    levels *= 3
    levels += np.where(image.labels == IGNORE_INDEX, np.uint16(2), image.predicted == image.labels)
    pairs = np.bincount(levels.ravel(), minlength=3 * (_LEVELS + 1)).reshape(-1, 3)
    places = np.arange(_LEVELS + 1)
    pixels = pairs[:, 0] + pairs[:, 1]
    of_level = np.stack([pixels, pixels * places / _LEVELS, pairs[:, 1]], axis=1)
    found = np.zeros((BINS, 3))
    np.add.at(found, np.minimum(places * BINS // _LEVELS, BINS - 1), of_level)
    return found


def _order(image: Compared, counts: npt.NDArray[np.int64]) -> dict[str, Any]:
    """By what a page sorts the picture: mIoU over its own classes, IoU of each of them, changes."""
    hits = counts.diagonal()
    unions = counts.sum(axis=0) + counts.sum(axis=1) - hits
    labeled = counts.sum(axis=1) > 0
    iou = {int(i): float(hits[i] / unions[i]) for i in np.flatnonzero(labeled)}
    changed = None if image.other is None else float((image.other != image.predicted).mean())
    mean = sum(iou.values()) / len(iou) if iou else None
    return {"image": image.stem, "miou": mean, "iou": iou, "changed": changed}


def _pictures(
    image: Compared, space: LabelSpace, budget: PictureBudget
) -> dict[str, Markup | None] | None:
    """The pictures of one image, None of them where the room is used up."""
    predicted, labels = budget.smaller(image.predicted), budget.smaller(image.labels)
    wrong = np.where(predicted == labels, _RIGHT, _WRONG)
    errors = np.where(labels == IGNORE_INDEX, _UNLABELED, wrong).astype(np.uint8)
    levels = (budget.smaller(image.confidence) * (len(_GRAYS) - 1)).round().astype(np.uint8)
    found = {
        "input": budget.of(Image.fromarray(image.image), parts=_OF_PHOTO),
        "labels": budget.of_map(labels, space.palette),
        "predicted": budget.of_map(predicted, space.palette),
        "errors": budget.of_map(errors, _ERROR_COLORS),
        "confidence": budget.of_map(levels, _GRAYS),
    }
    if image.other is not None:
        found["other"] = budget.of_map(image.other, space.palette)
    return None if None in found.values() else found
