"""CutOut consistency (French et al., BMVC 2020, arXiv 1906.01916): from an image with a gray box,
the student learns, around the box, the labels that a teacher gives to the whole image."""

from dataclasses import dataclass

from torch import Tensor

from uda.data.batch import Batch, View
from uda.experiment import Experiment
from uda.experiments.toy_city import toy_class_mix
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import StepContext
from uda.objectives.functional.losses import segmentation_loss
from uda.objectives.functional.mixing import random_boxes
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.utilities.errors import require_share


@dataclass(kw_only=True, slots=True)
class CutOutConfig(TeacherLabelsConfig):
    threshold: float = 0.968  # softmax probability from which the teacher counts as sure
    gray: float = 0.5  # intensity of the box

    def adds(self) -> frozenset[str]:
        return frozenset({"cut_out"})

    reads = adds  # its terms are made on the view that it adds

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.gray", self.gray)

    def build(self, num_classes: int) -> "CutOut":
        return CutOut(self)


class CutOut(TeacherLabels):
    config: CutOutConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        images, generators = batch.target_images, context.generators("cut_out")  # one per image
        labels, weights = self.labeled(batch, context)  # the teacher's, of the whole images
        size = (images.shape[2], images.shape[3])
        hidden = random_boxes(size, generators, device=images.device)
        shown = images.masked_fill(hidden[:, None], self.config.gray)
        return (View("cut_out", shown, labels, weights * ~hidden),)

    def terms(self, view: View, output: SegmentationOutput, _: StepContext) -> dict[str, Tensor]:
        assert view.labels is not None
        return {"main": segmentation_loss(output, view.labels, weights=view.weights)}


def toy_cut_out() -> Experiment:
    experiment = toy_class_mix()
    experiment.objectives["cut_out"] = CutOutConfig(start_step=150)
    return experiment
