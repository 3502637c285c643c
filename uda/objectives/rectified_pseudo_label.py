"""Rectified pseudo-labels: where the two heads disagree, a pseudo-label counts for less.

Source: Zheng and Yang, "Rectifying Pseudo Label Learning via Uncertainty Estimation for Domain
Adaptive Semantic Segmentation", IJCV 2021, arXiv 2003.03773.
"""

from dataclasses import dataclass

from torch import Tensor

from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.models.upsampled import Logits
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import ClassBalance, rectified_cross_entropy
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class RectifiedPseudoLabelConfig(ObjectiveConfig):
    """Settings of `RectifiedPseudoLabel`; pseudo_label.py has decided which pixels have a label."""

    auxiliary_weight: float = 0.5  # of the auxiliary head's loss
    class_balance: bool = False  # weigh classes up to 49-fold where they are rare, see ClassBalance
    # If set, the student learns the labels on a distorted copy of the target images, as a view of
    # its own; if none, on the plain target view, which other objectives may read, too.
    jitter: AnyJitter | None = None

    def needs(self) -> frozenset[Need]:
        return frozenset({"target", "pseudo_labels", "auxiliary_head"})

    def adds(self) -> frozenset[str]:
        return frozenset() if self.jitter is None else frozenset({"rectified_pseudo_label"})

    def reads(self) -> frozenset[str]:
        return self.adds() or frozenset({"target"})

    def learns_fixed_labels(self) -> bool:
        return True

    def check(self, path: str) -> None:
        super().check(path)
        require(
            self.auxiliary_weight > 0,
            f"{path}.auxiliary_weight is {self.auxiliary_weight}; it must be above 0: the loss "
            "compares both heads, so the auxiliary head has to be trained",
        )

    def build(self, num_classes: int) -> "RectifiedPseudoLabel":
        return RectifiedPseudoLabel(self, num_classes)


class RectifiedPseudoLabel(Objective):
    """Each head learns the pseudo-labels as far as the other head agrees with it."""

    config: RectifiedPseudoLabelConfig

    def __init__(self, config: RectifiedPseudoLabelConfig, num_classes: int) -> None:
        super().__init__(config)
        self.balance = ClassBalance(num_classes) if config.class_balance else None

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        if self.config.jitter is None:
            return ()
        generators = context.generators("rectified_pseudo_label")
        common = context.batch_generator("rectified_pseudo_label_jitter")
        images = jitter(batch.target_images, self.config.jitter, generators, common)
        return (View("rectified_pseudo_label", images, batch.target_pseudo_labels),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        main, auxiliary, labels = output.main, output.auxiliary, view.labels
        assert auxiliary is not None, "checked by validate()"
        assert labels is not None, "checked by validate()"
        context.counts.labeled(self, labels, main)
        # Once per step: both heads share the class weights.
        class_weights = None if self.balance is None else self.balance(labels)

        def loss(logits: Logits, other_logits: Logits) -> Tensor:
            return rectified_cross_entropy(
                logits, labels, other_logits=other_logits, class_weights=class_weights
            )

        return {
            "main": loss(main, auxiliary),
            "auxiliary": self.config.auxiliary_weight * loss(auxiliary, main),
        }
