"""DACS: source classes pasted onto target images, whose other pixels a mean teacher labels.

Source: Tranheden et al., "DACS", WACV 2021, arXiv 2007.08702.
"""

from dataclasses import dataclass, field, replace

from torch import Tensor

from uda.augmentation.jitter import JitterConfig, jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import segmentation_loss
from uda.objectives.functional.mixing import half_of_classes, mix_domains
from uda.objectives.functional.pseudo_labels import ConfidenceRule, confidence_weights
from uda.utilities.errors import require_share


@dataclass(kw_only=True, slots=True)
class ClassMixConfig(ObjectiveConfig):
    """Settings of `ClassMix`."""

    threshold: float = 0.9  # lowest softmax probability of a confident pseudo-label
    confidence: ConfidenceRule = "image_share"  # how confidence becomes the weight of a pixel
    jitter: JitterConfig | None = field(default_factory=JitterConfig)  # of the mixed image

    def needs(self) -> frozenset[Need]:
        return frozenset({"source", "target", "teacher"})

    def adds(self) -> frozenset[str]:
        return frozenset({"class_mix"})

    def reads(self) -> frozenset[str]:
        return frozenset({"class_mix"})

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.threshold", self.threshold)
        if self.jitter is not None:
            self.jitter.check(f"{path}.jitter")

    def build(self, num_classes: int) -> "ClassMix":
        return ClassMix(self)


class ClassMix(Objective):
    """Half of a source image's classes, pasted onto a target image that the teacher labeled."""

    config: ClassMixConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        pseudo = context.teacher_labels(batch.target_images)
        context.counts.sure(self, pseudo, self.config.threshold)
        generators = context.generators("class_mix")
        view = mix_domains(
            batch,
            pseudo.labels,
            name="class_mix",
            from_source=half_of_classes(batch.source_labels, generators),
            target_weights=confidence_weights(
                pseudo.confidence, self.config.threshold, self.config.confidence
            ),
        )
        if self.config.jitter is not None:
            view = replace(view, images=jitter(view.images, self.config.jitter, generators))
        return (view,)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "this objective's own view is labeled"
        return {"main": segmentation_loss(output, view.labels, weights=view.weights)}
