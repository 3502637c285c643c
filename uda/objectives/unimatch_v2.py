"""UniMatch V2: two strong views of an image, each without the feature channels that the other
keeps, learn what a mean teacher is sure of in the plain image.

Source: Yang et al., "UniMatch V2", arXiv 2410.10777, and LiheYoung/UniMatch-V2@f6afb4df.
"""

from dataclasses import dataclass, field

from torch import Tensor

from uda.augmentation.color_jitter import ColorJitterConfig
from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.labels.spaces import IGNORE_INDEX
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.functional.complementary import (
    boxes,
    chosen_images,
    drop_channels,
    reversed_batch,
)
from uda.objectives.functional.losses import segmentation_loss
from uda.objectives.functional.mixing import paste
from uda.objectives.functional.pseudo_labels import ConfidenceRule
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.utilities.errors import require, require_share

_VIEWS = ("unimatch_v2_first", "unimatch_v2_second")


def _strong() -> ColorJitterConfig:
    return ColorJitterConfig(
        library="torchvision", brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25,
        gray_probability=0.2, blur_sigma=(0.1, 2.0), per_batch="nothing",
    )  # fmt: skip


@dataclass(kw_only=True, slots=True)
class UniMatchV2Config(TeacherLabelsConfig):
    """Settings of `UniMatchV2`. The labeled images are an objective of their own: `supervised`."""

    threshold: float = 0.95
    confidence: ConfidenceRule = "pixel"
    jitter: AnyJitter | None = field(default_factory=_strong)  # of each strong view
    cut_mix: float = 0.5  # chance of a box from the batch in reverse order
    box_area: tuple[float, float] = (0.02, 0.4)  # share of the image
    box_ratio: tuple[float, float] = (0.3, 1 / 0.3)  # of its height to its width
    whole_features: float = 0.5  # share of the images whose channels are not dropped

    def adds(self) -> frozenset[str]:
        return frozenset(_VIEWS)

    def reads(self) -> frozenset[str]:
        return frozenset(_VIEWS)

    def check(self, path: str) -> None:
        super().check(path)
        for name in ("cut_mix", "whole_features"):
            require_share(f"{path}.{name}", getattr(self, name))
        for name, most in (("box_area", 1.0), ("box_ratio", 100.0)):
            low, high = getattr(self, name)
            require(
                0 < low <= high <= most,
                f"{path}.{name} is {(low, high)}; allowed: 0 < lowest <= highest <= {most:g}",
            )

    def idle(self) -> dict[str, str]:
        found = super().idle() | {"over": "the loss is averaged over all pixels but padding"}
        names = () if self.cut_mix else ("box_area", "box_ratio")
        return found | dict.fromkeys(names, "cut_mix is 0: no boxes")

    def build(self, num_classes: int) -> "UniMatchV2":
        return UniMatchV2(self)


class UniMatchV2(TeacherLabels):
    """The mean of the losses of both views, each over the pixels that are no padding."""

    config: UniMatchV2Config

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        labels, weights = self.labeled(batch, context)
        if batch.target_valid is not None:
            labels = labels.masked_fill(~batch.target_valid, IGNORE_INDEX)
        weights = weights.expand_as(labels)
        return tuple(self._strong_view(name, batch, labels, weights, context) for name in _VIEWS)

    def _strong_view(
        self, name: str, batch: Batch, labels: Tensor, weights: Tensor, context: StepContext
    ) -> View:
        config, generators = self.config, context.generators(name)
        images = batch.target_images
        if config.jitter is not None:
            images = jitter(images, config.jitter, generators, context.batch_generator(name))
        size = (labels.shape[1], labels.shape[2])
        where = boxes(size, generators, chance=config.cut_mix, area=config.box_area,
                      ratio=config.box_ratio).to(labels.device, non_blocking=True)  # fmt: skip
        images, labels, weights = (
            paste(reversed_batch(t), onto=t, where=where) for t in (images, labels, weights)
        )
        whole = chosen_images(
            len(labels), config.whole_features, context.batch_generator("unimatch_v2_whole")
        )

        def perturb(features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            coins = context.generators("unimatch_v2_coins")  # the same for both views
            return drop_channels(features, coins, whole, complement=name == _VIEWS[1])

        return View(name, images, labels, weights, perturb)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "this objective's own view is labeled"
        loss = segmentation_loss(output, view.labels, weights=view.weights)
        return {view.name.removeprefix("unimatch_v2_"): loss / len(_VIEWS)}
