"""CutMix across domains: a box of a target image, labeled by a mean teacher, in a source image.

Source: Yun et al., "CutMix", ICCV 2019, arXiv 1905.04899; for segmentation French et al., BMVC
2020, arXiv 1906.01916.
"""

from dataclasses import dataclass, replace

from torch import Tensor

from uda.errors import require_share
from uda.losses import cross_entropy
from uda.mixing import mix_domains, random_boxes
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Objective, ObjectiveConfig, StepContext
from uda.photometric import JitterConfig, jitter
from uda.pseudo_labels import ConfidenceRule, confidence_weights
from uda.views import Batch, View


@dataclass(kw_only=True, slots=True)
class CutMixConfig(ObjectiveConfig):
    """Settings of `CutMix`."""

    threshold: float = 0.9  # softmax probability from which a pseudo-label counts as sure
    confidence: ConfidenceRule = "image_share"  # how sureness becomes the weight of a pixel
    jitter: JitterConfig | None = None  # of the mixed image

    def needs(self) -> frozenset[str]:
        return frozenset({"target", "teacher"})

    def check(self, path: str) -> None:
        ObjectiveConfig.check(self, path)
        require_share(f"{path}.threshold", self.threshold)
        if self.jitter is not None:
            self.jitter.check(f"{path}.jitter")

    def build(self, num_classes: int) -> "CutMix":
        return CutMix(self)


class CutMix(Objective):
    """One box per image, a third of its area on average, comes from the target."""

    config: CutMixConfig
    reads = ("cut_mix",)

    def __init__(self, config: CutMixConfig) -> None:
        super().__init__()
        self.config = config

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        pseudo = context.teacher_labels(batch.target_images)
        generators = context.generators("cut_mix")
        height, width = batch.source_labels.shape[1:]
        from_target = random_boxes((height, width), generators, device=batch.source_labels.device)
        view = mix_domains(
            batch,
            pseudo.labels,
            name="cut_mix",
            from_source=~from_target,
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
        return {"main": cross_entropy(output.logits, view.labels, weights=view.weights)}
