"""ProDA, stage 1: pseudo-labels of the network before, corrected online by class prototypes.

Source: Zhang et al., "Prototypical Pseudo Label Denoising and Target Structure Learning", CVPR
2021, arXiv 2101.10979, equations 4 to 9, and microsoft/ProDA.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from uda.augmentation.policies import PolicyName
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import kl_to_reference
from uda.objectives.functional.noisy_labels import labels_where, spread, symmetric_cross_entropy
from uda.objectives.functional.prototypes import Prototypes, at_stride, denoised_labels
from uda.objectives.functional.strong_views import strong_view
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class ProDADenoiseConfig(ObjectiveConfig):
    """Settings of `ProDADenoise`."""

    cross_entropy: float = 0.1  # alpha of the symmetric cross-entropy
    reverse: float = 1.0  # its beta
    regularizer: float = 0.1  # weight of MRKLD
    structure: float = 10.0  # weight of the strong view's assignments
    temperature: float = 1.0  # tau of the assignments
    momentum: float = 0.9999  # share of a prototype that an image leaves
    min_pixels: int = 10  # of a class in an image that moves its prototype
    prototype_batches: int = 20  # whose mean features are the first prototypes
    stride: int = 4  # pixels between two that are learned
    policy: PolicyName | None = "photometric_distortion"  # of the strong view
    hidden: float = 0.25  # side of the square hidden in it, as a share of the shorter side

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "teacher"})

    def adds(self) -> frozenset[str]:
        return frozenset({"proda"})

    def reads(self) -> frozenset[str]:
        return frozenset({"target", "proda"})

    def first_batches(self) -> int:
        return self.prototype_batches

    def check(self, path: str) -> None:
        super().check(path)
        for name in ("cross_entropy", "reverse", "regularizer", "structure", "temperature",
                     "min_pixels", "prototype_batches", "stride"):  # fmt: skip
            value = getattr(self, name)
            require(value > 0, f"{path}.{name} is {value}; allowed: above 0")
        require_share(f"{path}.momentum", self.momentum)
        require_share(f"{path}.hidden", self.hidden)

    def build(self, num_classes: int) -> "ProDADenoise":
        return ProDADenoise(self, num_classes)


class ProDADenoise(Objective):
    """Labels: the most probable class of the frozen first network, weighed by how near the mean
    teacher's features are to the classes' prototypes."""

    config: ProDADenoiseConfig
    frozen: Segmenter

    def __init__(self, config: ProDADenoiseConfig, num_classes: int) -> None:
        super().__init__(config)
        self.prototypes = Prototypes(
            num_classes, temperature=config.temperature, momentum=config.momentum,
            pixels=config.min_pixels, stride=config.stride,
        )  # fmt: skip
        self._batch: Batch | None = None  # of the current step

    def attach(self, student: Segmenter) -> None:
        self.frozen = copy.deepcopy(student).requires_grad_(False).eval()
        self.prototypes.reset_for(self.frozen)

    def before_first_step(self, student: Segmenter, batches: Iterable[Batch]) -> None:
        self.prototypes.average(self.frozen, (batch.target_images for batch in batches))

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        self._batch = batch
        config, generators = self.config, context.generators("proda")
        images = strong_view(batch.target_images, policy=config.policy, hidden=config.hidden,
                             generators=generators)  # fmt: skip
        return (View("proda", images),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert self._batch is not None
        config, images = self.config, self._batch.target_images
        # (N, C, h, w) log softmax of the negative distances: equations 5 and 8
        assigned = self.prototypes.assigned(context.teacher_features(images), images)
        if view.name == "proda":
            own = self.prototypes.assigned(output.embedded, images)
            divergence = kl_to_reference(own, assigned.exp()) / own.shape[1]
            return {"structure": config.structure * divergence}
        before = self.prototypes.probabilities_of(self.frozen, images)
        labels = labels_where(self._batch.target_valid, denoised_labels(before, assigned))
        logits = at_stride(output.logits, images, config.stride)
        context.counts.labeled(self, labels, logits)
        alpha, beta = config.cross_entropy, config.reverse
        loss = symmetric_cross_entropy(logits, labels, forward=alpha, reverse=beta)
        return {"symmetric": loss, "regularizer": config.regularizer * spread(logits)}

    def after_step(self, context: StepContext) -> None:
        """The prototypes follow the teacher as it was before this step's update."""
        assert self._batch is not None
        images, self._batch = self._batch.target_images, None
        self.prototypes.update(context.teacher_logits(images), context.teacher_features(images))
