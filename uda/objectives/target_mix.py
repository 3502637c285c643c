"""ClassMix between target images: half of the classes that a mean teacher sees in one, pasted onto
another; a student of these learns the target without any source image.

Source: Olsson et al., "ClassMix", WACV 2021, arXiv 2007.07936, whose mixed images are all
unlabeled.
"""

from dataclasses import dataclass, field, replace

from uda.augmentation.jitter import AnyJitter, JitterConfig, jitter
from uda.data.batch import Batch, View
from uda.objectives.base import StepContext
from uda.objectives.functional.mixing import half_of_classes, paste
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class TargetMixConfig(TeacherLabelsConfig):
    """Settings of `TargetMix`."""

    jitter: AnyJitter | None = field(default_factory=JitterConfig)  # of the mixed image

    def adds(self) -> frozenset[str]:
        return frozenset({"target_mix"})

    def reads(self) -> frozenset[str]:
        return frozenset({"target_mix"})

    def idle(self) -> dict[str, str]:
        return super().idle() | {"over": "the teacher labels every pixel"}

    def build(self, num_classes: int) -> "TargetMix":
        return TargetMix(self)


class TargetMix(TeacherLabels):
    """The classes pasted onto image n of a batch are those of image n - 1."""

    config: TargetMixConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        images = batch.target_images
        require(
            len(images) > 1,
            "the objective target_mix pastes one target image of a batch onto another, but there "
            "is one: add --set train.batch_size=2 or more (on each process)",
        )
        labels, weights = self.labeled(batch, context)
        weights = weights.expand(labels.shape)
        generators = context.generators("target_mix")
        others = labels.roll(1, dims=0)
        pasted = half_of_classes(others, generators)
        mixed = View(
            "target_mix",
            paste(images.roll(1, dims=0), onto=images, where=pasted),
            paste(others, onto=labels, where=pasted),
            paste(weights.roll(1, dims=0), onto=weights, where=pasted),
        )
        if self.config.jitter is not None:
            common = context.batch_generator("target_mix_jitter")
            images = jitter(mixed.images, self.config.jitter, generators, common)
            mixed = replace(mixed, images=images)
        return (mixed,)
