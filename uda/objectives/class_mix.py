"""DACS: source classes pasted onto target images, whose other pixels a mean teacher labels.

Source: Tranheden et al., "DACS", WACV 2021, arXiv 2007.08702.
"""

from dataclasses import dataclass, field, replace

from uda.augmentation.jitter import AnyJitter, JitterConfig, jitter
from uda.data.batch import Batch, View
from uda.objectives.base import Need, StepContext
from uda.objectives.functional.mixing import Candidates, half_of_classes, mix_domains
from uda.objectives.functional.target_jitter import jittered_target
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig


@dataclass(kw_only=True, slots=True)
class ClassMixConfig(TeacherLabelsConfig):
    """Settings of `ClassMix`. As DACS's authors ran it: presets `dacs_gta5`, `daformer_gta5`."""

    # The classes of which half are pasted: the image's, with (DACS) or without ignored pixels as
    # one more class; or those of the whole batch (DAFormer, HRDA, MIC, VFM-UDA).
    candidates: Candidates = "image"
    # Of the target image before source classes are pasted (VFM-UDA); the teacher sees it plain.
    target_jitter: AnyJitter | None = None
    jitter: AnyJitter | None = field(default_factory=JitterConfig)  # of the mixed image

    def needs(self) -> frozenset[Need]:
        return super().needs() | {"source", "equal_crops"}

    def adds(self) -> frozenset[str]:
        return frozenset({"class_mix"})

    def reads(self) -> frozenset[str]:
        return frozenset({"class_mix"})

    def idle(self) -> dict[str, str]:
        found = super().idle()
        if self.candidates == "image":
            found["over"] = "with candidates=image, every pixel of the mixed image has a label"
        return found

    def build(self, num_classes: int) -> "ClassMix":
        return ClassMix(self)


class ClassMix(TeacherLabels):
    """Half of a source image's classes, pasted onto a target image that the teacher labeled."""

    config: ClassMixConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        labels, weights = self.labeled(batch, context)
        batch = jittered_target(batch, self.config.target_jitter, context)
        generators = context.generators("class_mix")
        view = mix_domains(
            batch,
            labels,
            name="class_mix",
            from_source=half_of_classes(batch.source_labels, generators, self.config.candidates),
            target_weights=weights,
        )
        if self.config.jitter is not None:
            common = context.batch_generator("class_mix_jitter")
            images = jitter(view.images, self.config.jitter, generators, common)
            view = replace(view, images=images)
        return (view,)
