"""What can be told of a network without labels: looks at it on the same images, before and after it
was adapted."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig
from uda.evaluation.label_free import Criterion, criteria_of_image
from uda.evaluation.passes import coarse_logits
from uda.evaluation.views import Views, read_views
from uda.labels.spaces import LabelSpace
from uda.models.segmenter import Segmenter

_SMALLER = 0.75  # of the image's sides, in the second view
_SURE = 0.9  # of a class, for a prediction to be sure
_RARE = 0.001  # a class of fewer of the pixels has no say in the agreement


CRITERIA: Mapping[str, Criterion] = {
    "agreement": Criterion(
        "agreement between views", True,
        "mean IoU between the classes of an image and those of its mirror image and of the image "
        "made smaller by a quarter",
    ),
    "density": Criterion(
        "soft neighborhood density", True, "how many similar neighbors a prediction has, in nats"
    ),
    "information": Criterion(
        "information maximization", True,
        "entropy of the mean prediction minus the mean entropy of the predictions, in nats",
    ),
    "entropy": Criterion(
        "mean entropy", False,
        "of the predictions, in nats; a network that sees one class everywhere has the lowest",
    ),
    "classes": Criterion(
        "effective number of classes", True,
        "exp of the entropy of the classes' shares of the pixels: 19 when all of 19 are equally "
        "frequent, 1 when only one is left",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Look:
    """A network on N images without labels; C classes."""

    stems: tuple[str, ...]
    entropy: Tensor  # (N,) float64, mean of the pixels' predictions, in nats
    density: Tensor  # (N,) float64, soft neighborhood density, in nats
    probabilities: Tensor  # (N, C) float64, mean over the pixels
    # (N, C, C) int64: pixels by the class in the image (rows) and in its other views (columns)
    agreeing: Tensor
    predicted: tuple[Tensor, ...]  # (h, w) uint8 of each, at the network's own stride
    sure: tuple[Tensor, ...]  # (h, w) bool: one class in all views, with a probability of `_SURE`

    def of(self, chosen: Tensor) -> "Look":
        """The look at the images of these numbers, which may repeat."""
        return Look(
            tuple(self.stems[i] for i in chosen.tolist()), self.entropy[chosen],
            self.density[chosen], self.probabilities[chosen], self.agreeing[chosen],
            tuple(self.predicted[i] for i in chosen.tolist()),
            tuple(self.sure[i] for i in chosen.tolist()),
        )  # fmt: skip

    def values(self) -> dict[str, float]:
        """The value of each of CRITERIA over the images."""
        shares = self.shares()
        return {
            "agreement": self.agreement(),
            "density": float(self.density.mean()),
            "information": self.information(),
            "entropy": float(self.entropy.mean()),
            "classes": math.exp(-float(torch.special.xlogy(shares, shares).sum())),
        }

    def information(self) -> float:
        """Entropy of the mean prediction minus the mean entropy, in nats."""
        marginal = self.probabilities.mean(dim=0)
        diversity = float(-torch.special.xlogy(marginal, marginal).sum())
        return diversity - float(self.entropy.mean())

    def agreement(self) -> float:
        """Of the classes with a share of the pixels above `_RARE`, in the images or their views."""
        counts = self.agreeing.sum(dim=0).double()
        rows, columns = counts.sum(dim=1), counts.sum(dim=0)
        seen = torch.maximum(rows, columns) > _RARE * counts.sum()
        ious = counts.diagonal() / (rows + columns - counts.diagonal()).clamp(min=1)
        return float(ious[seen].mean())

    def shares(self) -> Tensor:
        """(C,) float64, how many of the pixels have each class, in the mean over images."""
        classes = self.probabilities.shape[1]
        found = [
            torch.bincount(labels.flatten().long(), minlength=classes).double() / labels.numel()
            for labels in self.predicted
        ]
        return torch.stack(found).mean(dim=0)


@torch.no_grad()
def look_at(
    segmenter: Segmenter,
    samples: Sequence[Sample],
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
    workers: int = 0,
    progress: Callable[[Iterable[Views]], Iterable[Views]] = iter,
) -> Look:
    """Shows the network each image as its protocol does, mirrored, and smaller by a quarter; no
    label is read. The network is left in evaluation mode."""
    samples = [sample._replace(labels=None) for sample in samples]
    config = replace(config, scales=(1.0, _SMALLER), flip=False)
    device = next(segmenter.parameters()).device
    classes = label_space.num_classes
    mirrored = torch.tensor(label_space.mirrored or range(classes), device=device)
    segmenter.eval()
    rows, agreeing, predicted, sure, stems = [], [], [], [], []
    for views in progress(read_views(samples, config, label_space, workers=workers)):
        whole, smaller = (image.to(device).float().div_(255)[None] for image in views.images)
        logits = coarse_logits(segmenter, whole, config)
        rows.append(criteria_of_image(logits).cpu())
        confidence, labels = logits[0].softmax(dim=0).max(dim=0)
        turned = mirrored[coarse_logits(segmenter, whole.flip(3), config)[0].argmax(dim=0).flip(1)]
        small = coarse_logits(segmenter, smaller, config)
        small = F.interpolate(small, labels.shape, mode="bilinear")[0].argmax(dim=0)
        pairs = torch.cat([(labels * classes + other).flatten() for other in (turned, small)])
        counts = torch.bincount(pairs, minlength=classes * classes)
        agreeing.append(counts.view(classes, classes).cpu())
        predicted.append(labels.to(torch.uint8).cpu())
        sure.append(((turned == labels) & (small == labels) & (confidence >= _SURE)).cpu())
        stems.append(views.stem)
    found = torch.stack(rows)
    return Look(
        tuple(stems), found[:, 0], found[:, 1], found[:, 2:], torch.stack(agreeing),
        tuple(predicted), tuple(sure),
    )  # fmt: skip


def given_up(before: Look, after: Look) -> float:
    """The share of the pixels that the network before was sure of, in all views, and that have
    another class now; 0 if it was sure of none."""
    pairs = zip(before.predicted, after.predicted, before.sure, strict=True)
    counts = [(int(sure.sum()), int(((old != new) & sure).sum())) for old, new, sure in pairs]
    return sum(flipped for _, flipped in counts) / max(sum(count for count, _ in counts), 1)


def changed_shares(before: Look, after: Look) -> list[float]:
    """Of each image, the share of the pixels that have another class than before."""
    return [
        float((old != new).double().mean())
        for old, new in zip(before.predicted, after.predicted, strict=True)
    ]
