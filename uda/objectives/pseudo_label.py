"""Self-training: target images with pseudo-labels from a folder.

Source: Zou et al., "Unsupervised Domain Adaptation for Semantic Segmentation via Class-Balanced
Self-Training", ECCV 2018, arXiv 1810.07911, with one threshold for all classes.
"""

from dataclasses import dataclass

from torch import Tensor

from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import cross_entropy, segmentation_loss
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class PseudoLabelConfig(ObjectiveConfig):
    """Settings of `PseudoLabel`; pseudo_label.py has decided which pixels have a label."""

    auxiliary_weight: float = 0.5  # of the auxiliary head's loss; 0 leaves that head out
    # If set, the student learns the labels on a distorted copy of the target images, as a view of
    # its own; if none, on the plain target view, which other objectives may read, too.
    jitter: AnyJitter | None = None

    def needs(self) -> frozenset[Need]:
        needs: set[Need] = {"target", "pseudo_labels"}
        return frozenset(needs | {"auxiliary_head"} if self.auxiliary_weight else needs)

    def adds(self) -> frozenset[str]:
        return frozenset() if self.jitter is None else frozenset({"pseudo_label"})

    def reads(self) -> frozenset[str]:
        return self.adds() or frozenset({"target"})

    def learns_fixed_labels(self) -> bool:
        return True

    def check(self, path: str) -> None:
        super().check(path)
        require(
            self.auxiliary_weight >= 0,
            f"{path}.auxiliary_weight is {self.auxiliary_weight}; allowed: 0 or more",
        )

    def build(self, num_classes: int) -> "PseudoLabel":
        return PseudoLabel(self)


class PseudoLabel(Objective):
    """Cross-entropy on the pseudo-labeled pixels of target images."""

    config: PseudoLabelConfig

    def __init__(self, config: PseudoLabelConfig) -> None:
        super().__init__(config)

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        if self.config.jitter is None:
            return ()
        generators = context.generators("pseudo_label")
        common = context.batch_generator("pseudo_label_jitter")
        images = jitter(batch.target_images, self.config.jitter, generators, common)
        return (View(name="pseudo_label", images=images, labels=batch.target_pseudo_labels),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "checked by validate()"
        context.counts.labeled(self, view.labels, output.main)
        terms = {"main": segmentation_loss(output, view.labels)}
        if self.config.auxiliary_weight:
            assert output.auxiliary is not None
            auxiliary = cross_entropy(output.auxiliary, view.labels)
            terms["auxiliary"] = self.config.auxiliary_weight * auxiliary
        return terms
