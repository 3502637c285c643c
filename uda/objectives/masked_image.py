"""Masked image consistency (MIC): from an image with hidden patches, the student learns the labels
that a teacher gives to the whole image.

Source: Hoyer et al., "MIC", CVPR 2023, arXiv 2212.01322, section 3.2, equations (4) to (9).
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor

from uda.augmentation.color_jitter import ColorJitterConfig
from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import Segmenter
from uda.objectives.base import Need, StepContext
from uda.objectives.functional.losses import Denominator
from uda.objectives.functional.mixing import mix_domains, random_blocks
from uda.objectives.functional.pseudo_labels import ConfidenceRule
from uda.objectives.functional.target_jitter import jittered_target
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.utilities.errors import require, require_share


def _jitter() -> ColorJitterConfig:
    return ColorJitterConfig(per_batch="coins_order_sigma")


@dataclass(kw_only=True, slots=True)
class MaskedImageConfig(TeacherLabelsConfig):
    """Settings of `MaskedImage`; the defaults are those of its authors for crops of 1024."""

    threshold: float = 0.968
    confidence: ConfidenceRule = "batch_share"
    over: Denominator = "all"
    hidden: float = 0.7  # how likely a block is hidden
    block: int = 64  # side of a block in pixels; 32 for crops of 512
    # "target": all target images (from GTA5 and SYNTHIA to Cityscapes). "source_and_target": every
    # second sample gives its source image with the true labels instead (Cityscapes to ACDC and Dark
    # Zurich, there without jitter).
    images: Literal["target", "source_and_target"] = "target"
    target_jitter: AnyJitter | None = None  # of the target image, as in ClassMixConfig
    jitter: AnyJitter | None = field(default_factory=_jitter)  # before the mask

    def needs(self) -> frozenset[Need]:
        needs = super().needs()
        return needs | {"source", "equal_crops"} if self.images == "source_and_target" else needs

    def adds(self) -> frozenset[str]:
        return frozenset({"masked_image"})

    def reads(self) -> frozenset[str]:
        return frozenset({"masked_image"})

    def idle(self) -> dict[str, str]:
        found = super().idle()
        if self.images == "target":
            found["over"] = "with images=target, the teacher labels every pixel"
        return found

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.hidden", self.hidden)
        require(self.block >= 1, f"{path}.block is {self.block}; allowed: 1 pixel or more")

    def build(self, num_classes: int) -> "MaskedImage":
        return MaskedImage(self)


class MaskedImage(TeacherLabels):
    """Hidden blocks have the color that the network's normalization makes 0."""

    config: MaskedImageConfig
    color: Tensor

    def __init__(self, config: MaskedImageConfig) -> None:
        super().__init__(config)
        self.register_buffer("color", torch.zeros(1, 3, 1, 1))

    def attach(self, student: Segmenter) -> None:
        """Keeps the network's mean color."""
        self.color = student.mean.detach().clone()

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        labels, weights = self.labeled(batch, context)
        batch = jittered_target(batch, self.config.target_jitter, context)
        view = View("masked_image", batch.target_images, labels, weights)
        if self.config.images == "source_and_target":
            even = torch.tensor([index % 2 == 0 for index in context.indices])
            of_source = even.to(labels.device, non_blocking=True).view(-1, 1, 1).expand_as(labels)
            view = mix_domains(
                batch, labels, name=view.name, from_source=of_source, target_weights=weights
            )
        images = view.images
        if self.config.jitter is not None:
            generators = context.generators("masked_image_jitter")
            common = context.batch_generator("masked_image_jitter_of_batch")
            images = jitter(images, self.config.jitter, generators, common)
        hidden = random_blocks(
            images.shape[-2:],
            context.generators("masked_image"),
            side=self.config.block,
            share=self.config.hidden,
        )
        hidden = hidden.to(images.device, non_blocking=True).unsqueeze(1)
        return (replace(view, images=torch.where(hidden, self.color, images)),)
