"""Cross-entropy on labeled images, plain or balanced and restricted to hard pixels."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.hard_pixels import OhemConfig
from uda.objectives.functional.losses import (
    ClassBalance,
    Denominator,
    cross_entropy,
    segmentation_loss,
)
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class SupervisedConfig(ObjectiveConfig):
    """Settings of `Supervised`."""

    # "target" learns the target's ground truth: data.target_ground_truth has to be true, and the
    # run is a supervised one. Together with an objective on the source, supervision is mixed.
    view: Literal["source", "target"] = "source"
    auxiliary_weight: float = 0.5  # of the auxiliary head's loss; 0 leaves that head out
    class_balance: bool = False  # weigh classes up to 49-fold where they are rare, see ClassBalance
    hardest: float = 1.0  # share of the pixels, those with the highest loss, that are learned
    ohem: OhemConfig | None = None  # or those that are not yet learned: see there
    # The pixels that the loss is averaged over; see `cross_entropy`.
    over: Denominator = "labeled"
    # Of the images, for this objective only: what else sees them (class mix) sees them as they are.
    jitter: AnyJitter | None = None

    def needs(self) -> frozenset[Need]:
        needs: set[Need] = (
            {"source"} if self.view == "source" else {"target", "target_ground_truth"}
        )
        return frozenset(needs | {"auxiliary_head"} if self.auxiliary_weight else needs)

    def adds(self) -> frozenset[str]:
        return frozenset() if self.jitter is None else frozenset({f"jittered_{self.view}"})

    def reads(self) -> frozenset[str]:
        return self.adds() or frozenset({self.view})

    def learns_fixed_labels(self) -> bool:
        return True

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.hardest", self.hardest)
        require(
            self.auxiliary_weight >= 0,
            f"{path}.auxiliary_weight is {self.auxiliary_weight}; allowed: 0 or more",
        )
        require(
            self.ohem is None or not self.class_balance,
            f"{path}.class_balance is true, but {path}.ohem goes by confidence alone: add --set "
            f"{path}.class_balance=false, or --set {path}.ohem=none",
        )

    def idle(self) -> dict[str, str]:
        return {} if self.ohem is None else {"hardest": "ohem chooses the pixels"}

    def build(self, num_classes: int) -> "Supervised":
        return Supervised(self, num_classes)


class Supervised(Objective):
    """Cross-entropy of annotated images."""

    config: SupervisedConfig

    def __init__(self, config: SupervisedConfig, num_classes: int) -> None:
        super().__init__(config)
        self.balance = ClassBalance(num_classes) if config.class_balance else None

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        if self.config.jitter is None:
            return ()
        (name,) = self.config.adds()
        images, labels = batch.source_images, batch.source_labels
        if self.config.view == "target":
            assert batch.target_ground_truth is not None, "checked by validate()"
            images, labels = batch.target_images, batch.target_ground_truth
        own, common = context.generators(name), context.batch_generator(name)
        return (View(name, jitter(images, self.config.jitter, own, common), labels),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "checked by validate()"
        # Once per step, from the unfiltered labels: both heads share the class weights.
        class_weights = None if self.balance is None else self.balance(view.labels)

        hardest, over = self.config.ohem or self.config.hardest, self.config.over
        terms = {
            "main": segmentation_loss(
                output, view.labels, class_weights=class_weights, hardest=hardest, over=over
            )
        }
        if self.config.auxiliary_weight:
            assert output.auxiliary is not None
            auxiliary = cross_entropy(
                output.auxiliary,
                view.labels,
                class_weights=class_weights,
                hardest=hardest,
                over=over,
            )
            terms["auxiliary"] = self.config.auxiliary_weight * auxiliary
        return terms
