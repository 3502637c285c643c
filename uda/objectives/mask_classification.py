"""Mask2Former's own loss: each class of an image is one mask, which one query has to find.

Queries are matched to masks by the Hungarian method; those without one learn "no object". Every
decoder layer is taught so. Matching and losses are transformers'; see uda/models/mask2former.py.

Source: Cheng et al., CVPR 2022, arXiv 2112.01527, sections 3.2 and 4.1.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uda.data.labels import IGNORE_INDEX
from uda.errors import require, require_share
from uda.models.mask2former import MaskLoss
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Objective, ObjectiveConfig, StepContext
from uda.views import View


@dataclass(kw_only=True, slots=True)
class MaskClassificationConfig(ObjectiveConfig):
    """Settings of `MaskClassification`; the weights are also those of the matching's costs."""

    view: Literal["source", "target"] = "source"  # "target": as in SupervisedConfig
    class_weight: float = 2.0
    no_object_weight: float = 0.1  # of the class "no object" in the class loss
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    points: int = 12_544  # of each mask, at which masks are compared
    oversample: float = 3.0  # candidates for the points of high uncertainty, times `points`
    importance: float = 0.75  # share of the points that are such, the rest is uniform

    def needs(self) -> frozenset[str]:
        view = {"source"} if self.view == "source" else {"target", "target_ground_truth"}
        return frozenset({"queries"} | view)

    def learns_fixed_labels(self) -> bool:
        return True

    def check(self, path: str) -> None:
        ObjectiveConfig.check(self, path)
        for name in ("class_weight", "no_object_weight", "mask_weight", "dice_weight", "points"):
            value = getattr(self, name)
            require(value > 0, f"{path}.{name} is {value}; it must be above 0")
        require(self.oversample >= 1, f"{path}.oversample is {self.oversample}; allowed: 1 or more")
        require_share(f"{path}.importance", self.importance)

    def build(self, num_classes: int) -> "MaskClassification":
        return MaskClassification(self, num_classes)


class MaskClassification(Objective):
    """Masks and classes are learned apart: no pixel's class is asked for.

    Unlabeled pixels are in no mask, and where one is drawn as a point no mask should be: as in the
    paper, whose labels leave out little.
    """

    config: MaskClassificationConfig

    def __init__(self, config: MaskClassificationConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.reads = (config.view,)
        self.loss = MaskLoss(
            num_classes=num_classes,
            no_object_weight=config.no_object_weight,
            class_weight=config.class_weight,
            mask_weight=config.mask_weight,
            dice_weight=config.dice_weight,
            points=config.points,
            oversample=config.oversample,
            importance=config.importance,
        )

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "validate() has seen to it that there are labels"
        assert output.query_classes is not None, "validate() has seen to it that there are queries"
        assert output.query_masks is not None
        classes, masks = zip(*map(masks_of, view.labels), strict=True)
        devices = [view.labels.device] if view.labels.is_cuda else []
        with torch.random.fork_rng(devices):  # the library draws its points from the global one
            torch.manual_seed(context.generators(f"points/{view.name}")[0].initial_seed())
            return self.loss(output.query_classes, output.query_masks, masks=masks, classes=classes)


def masks_of(labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes (K,) int64 of one image's labels (H, W), and the mask (K, H, W) float of each;
    unlabeled pixels are in none."""
    classes = labels.unique().long()
    classes = classes[classes != IGNORE_INDEX]
    return classes, (labels[None] == classes[:, None, None]).float()
