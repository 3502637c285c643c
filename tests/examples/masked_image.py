"""Masked image consistency (Hoyer et al., "MIC", CVPR 2023, arXiv 2212.01322): from an image with
hidden patches, the student learns the labels that a teacher gives to the whole image."""

from dataclasses import dataclass

from torch import Tensor, rand, stack
from torch.nn.functional import interpolate

from uda.data.batch import Batch, View
from uda.experiment import Experiment
from uda.experiments.toy_city import toy_class_mix
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import segmentation_loss
from uda.objectives.functional.pseudo_labels import confidence_weights
from uda.utilities.errors import require_share


@dataclass(kw_only=True, slots=True)
class MaskedImageConfig(ObjectiveConfig):
    hidden: float = 0.7  # share of the 16 x 16 patches of an image
    threshold: float = 0.968  # softmax probability from which the teacher counts as sure

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "teacher"})

    def adds(self) -> frozenset[str]:
        return frozenset({"masked"})

    reads = adds  # its terms are made on the view that it adds

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.hidden", self.hidden)

    def build(self, num_classes: int) -> "MaskedImage":
        return MaskedImage(self)


class MaskedImage(Objective):
    config: MaskedImageConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        images, generators = batch.target_images, context.generators("masked")  # one per image
        labels, confidence = context.teacher_labels(images)
        weights = confidence_weights(confidence, self.config.threshold, "image_share")
        noise = stack([rand(1, 16, 16, generator=g) for g in generators])
        hidden = interpolate((noise < self.config.hidden).float(), images.shape[-2:])
        masked = images.lerp(images.mean((2, 3), keepdim=True), hidden.to(images.device))
        return (View("masked", masked, labels, weights),)

    def terms(self, view: View, output: SegmentationOutput, _: StepContext) -> dict[str, Tensor]:
        assert view.labels is not None
        return {"main": segmentation_loss(output, view.labels, weights=view.weights)}


def toy_masked_image() -> Experiment:
    experiment = toy_class_mix()
    experiment.objectives["masked_image"] = MaskedImageConfig(start_step=150)
    return experiment
