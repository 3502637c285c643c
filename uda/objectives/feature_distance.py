"""Feature distance (DAFormer): the student's deepest features of source images stay close to those
of its initial encoder, where a class covers most of a cell.

Source: Hoyer et al., "DAFormer", CVPR 2022, arXiv 2111.14887, section 3.3, equations (7) to (10).
"""

from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from uda.data.batch import View
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.utilities.distributed import mean_over_ranks
from uda.utilities.errors import InputError, require

# DAFormer's "things" of Cityscapes: light, sign, person, rider, car, truck, bus, train, motorcycle,
# bicycle.
CITYSCAPES_THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)


@dataclass(kw_only=True, slots=True)
class FeatureDistanceConfig(ObjectiveConfig):
    """Settings of `FeatureDistance`."""

    weight: float = 0.005  # the paper's lambda
    # Train ids of the classes whose cells count, in DAFormer 6,7,11,12,13,14,15,16,17,18, the
    # things of Cityscapes. None: all classes.
    classes: tuple[int, ...] | None = None
    share: float = 0.75  # a cell is of the class that has at least this share of its pixels

    def needs(self) -> frozenset[Need]:
        return frozenset({"source"})

    def reads(self) -> frozenset[str]:
        return frozenset({"source"})

    def check(self, path: str) -> None:
        super().check(path)
        require(
            0.5 < self.share <= 1,
            f"{path}.share is {self.share}; allowed: above 0.5, so that one class has it, up to 1",
        )
        require(
            self.classes is None or len(self.classes) > 0,
            f"{path}.classes is empty: name train ids, such as --set {path}.classes=11,12, or none "
            "for all classes",
        )

    def build(self, num_classes: int) -> "FeatureDistance":
        classes = tuple(range(num_classes)) if self.classes is None else self.classes
        require(
            all(0 <= train_id < num_classes for train_id in classes),
            f"classes of feature_distance are {classes}, but this label space has the train ids 0 "
            f"to {num_classes - 1}: name those that count, or all with --set "
            "objectives.feature_distance.classes=none",
        )
        return FeatureDistance(self, classes)


class FeatureDistance(Objective):
    """The Euclidean distance between two feature vectors, averaged over the cells that count."""

    config: FeatureDistanceConfig

    def __init__(self, config: FeatureDistanceConfig, classes: tuple[int, ...]) -> None:
        super().__init__(config)
        self.classes = classes
        self.initial: Segmenter | None = None

    def attach(self, student: Segmenter) -> None:
        """Keeps a copy of the whole network: it alone knows what its encoder gets to see."""
        self.initial = deepcopy(student).requires_grad_(False)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert self.initial is not None, "attached before the first step"
        assert view.labels is not None, "checked by validate()"
        with torch.no_grad():
            target = self.initial.eval().deepest_features(view.images).float()
        counts = cells_of(view.labels, self.classes, target.shape[-2:], share=self.config.share)
        distances = torch.linalg.vector_norm(output.features.float() - target, dim=1)
        total = mean_over_ranks(counts.sum())
        # Not a mean: without a cell it would be NaN.
        loss = torch.where(counts, distances, 0).sum() / torch.where(total > 0, total, 1)
        return {"main": loss}


def cells_of(
    labels: Tensor, classes: Iterable[int], size: tuple[int, ...], *, share: float
) -> Tensor:
    """The cells (N, h, w) bool of which one of the classes has at least `share` of the pixels.

    labels: (N, H, W) int64, 255 ignored; `size`: (h, w). Raises InputError when cells are not all
    of one whole number of pixels: then the network has padded the images.
    """
    rows, columns = (side // cells for side, cells in zip(labels.shape[-2:], size, strict=True))
    if (rows * size[0], columns * size[1]) != labels.shape[-2:]:
        raise InputError(
            f"the network has {size[0]}x{size[1]} features for crops of {labels.shape[1]}x"
            f"{labels.shape[2]} pixels, which are no whole cells: let the sides of data.crop be "
            "multiples of the encoder's stride (32; 64 with model.hrda)"
        )
    # One class at a time: a map of all of them would take as much memory as the logits.
    found = torch.zeros(len(labels), *size, dtype=torch.bool, device=labels.device)
    for train_id in classes:
        shares = F.avg_pool2d((labels == train_id).float().unsqueeze(1), (rows, columns))
        found |= shares.squeeze(1) >= share
    return found
