"""Mask2Former's loss: each class of an image is one mask, which one query has to find.

Queries are matched to masks by the Hungarian method; queries without a mask learn "no object". The
loss is applied after every decoder layer. Matching and losses are those of the package
transformers; see uda/models/mask2former.py.

Source: Cheng et al., CVPR 2022, arXiv 2112.01527, sections 3.2 and 4.1.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from uda.data.batch import View
from uda.models.mask2former import MaskLoss
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.masks import masks_of, mean_by_mass
from uda.utilities.errors import require, require_share

_MOST_POINTS = 2**20  # as many as a tile of 1024x1024 has pixels
_MOST_CANDIDATES = 100  # times the points


@dataclass(kw_only=True, slots=True)
class MaskClassificationConfig(ObjectiveConfig):
    """Settings of `MaskClassification`; the weights are also those of the matching costs."""

    view: Literal["source", "target"] = "source"  # "target": as in SupervisedConfig
    class_weight: float = 2.0
    no_object_weight: float = 0.1  # of the class "no object" in the class loss
    mask_weight: float = 5.0
    dice_weight: float = 5.0
    points: int = 12_544  # of each mask, at which masks are compared
    oversample: float = 3.0  # candidates for the points of high uncertainty, times `points`
    importance: float = 0.75  # share of points of high uncertainty; the others are uniform

    def needs(self) -> frozenset[Need]:
        view: set[Need] = {"source"} if self.view == "source" else {"target", "target_ground_truth"}
        return frozenset({"queries", *view})

    def reads(self) -> frozenset[str]:
        return frozenset({self.view})

    def learns_fixed_labels(self) -> bool:
        return True

    def check(self, path: str) -> None:
        super().check(path)
        for name in ("class_weight", "no_object_weight", "mask_weight", "dice_weight", "points"):
            value = getattr(self, name)
            require(value > 0, f"{path}.{name} is {value}; it must be above 0")
        require(
            1 <= self.oversample <= _MOST_CANDIDATES and self.points <= _MOST_POINTS,
            f"{path}.oversample is {self.oversample}, {path}.points is {self.points}; allowed: 1 "
            f"to {_MOST_CANDIDATES}, and up to {_MOST_POINTS}",
        )
        require_share(f"{path}.importance", self.importance)

    def build(self, num_classes: int) -> "MaskClassification":
        return MaskClassification(self, num_classes)


class MaskClassification(Objective):
    """Masks and classes are learned separately, without a class per pixel.

    Unlabeled pixels belong to no mask, so a sampled point there counts as background of every mask,
    as in the paper.
    """

    config: MaskClassificationConfig

    def __init__(self, config: MaskClassificationConfig, num_classes: int) -> None:
        super().__init__(config)
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
        assert view.labels is not None, "checked by validate()"
        assert output.query_classes is not None, "checked by validate()"
        assert output.query_masks is not None
        queries = zip(output.query_classes.unbind(1), output.query_masks.unbind(1), strict=True)
        objects = [masks_of(labels) for labels in view.labels]
        found = []
        devices = [view.labels.device] if view.labels.is_cuda else []
        with torch.random.fork_rng(
            devices
        ):  # transformers samples points from the global generator
            for said, (classes, masks), generator in zip(
                queries, objects, context.generators(f"points/{view.name}"), strict=True
            ):
                torch.manual_seed(generator.initial_seed())
                found.append(self.loss(*said, masks=masks, classes=classes))
        counts = view.labels.new_tensor([len(c) for c, _ in objects], dtype=torch.float32)
        of_queries = self._mass(counts, queries=output.query_classes.shape[2])
        return {
            name: mean_by_mass(
                torch.stack([terms[name] for terms in found]),
                of_queries if name == "class" else counts,
            )
            for name in found[0]
        }

    def _mass(self, counts: Tensor, *, queries: int) -> Tensor:
        """The total weight (N,) of the queries of each image in the class loss; `counts` (N,) is
        the number of masks to find."""
        matched = counts.clamp(max=queries)
        return matched + self.config.no_object_weight * (queries - matched)
