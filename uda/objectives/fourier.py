"""Fourier domain adaptation: source images that have the target's low-frequency amplitudes.

Source: Yang and Soatto, "FDA", CVPR 2020, arXiv 2004.05498: section 2.1 (the images, made by
augmentation/fourier.py) and the cross-entropy of section 2.2. The entropy of the target there is
`EntropyConfig(unit="share", charbonnier=2.0)`; the labels of later rounds are `PseudoLabel`'s.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from uda.augmentation.fourier import Window, lowest_frequencies, swap_amplitude
from uda.data.batch import Batch, View
from uda.models.segmenter import SegmentationOutput
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.losses import cross_entropy, segmentation_loss
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class FourierConfig(ObjectiveConfig):
    """Settings of `Fourier`."""

    band: float = 0.05  # of the crop's shorter side; the paper's three are 0.01, 0.05, 0.09
    # "asymmetric": frequencies -b to b - 1, which FDA trains with; "symmetric": -b to b.
    window: Window = "asymmetric"
    auxiliary_weight: float = 0.5  # of the auxiliary head's loss; 0 leaves that head out

    def needs(self) -> frozenset[Need]:
        needs: set[Need] = {"source", "target", "equal_crops"}
        return frozenset(needs | {"auxiliary_head"} if self.auxiliary_weight else needs)

    def adds(self) -> frozenset[str]:
        return frozenset({"fourier"})

    reads = adds  # its terms are made on the view that it adds

    def learns_fixed_labels(self) -> bool:
        return True

    def check(self, path: str) -> None:
        super().check(path)
        require(
            0 < self.band <= 0.5,
            f"{path}.band is {self.band}; allowed: above 0 and up to 0.5, the whole spectrum",
        )
        require(
            self.auxiliary_weight >= 0,
            f"{path}.auxiliary_weight is {self.auxiliary_weight}; allowed: 0 or more",
        )

    def check_crop(self, path: str, crop: tuple[int, int]) -> None:
        height, width = crop
        least = math.ceil(1000 / min(crop)) / 1000  # rounded up, so that it is accepted
        require(
            lowest_frequencies(crop, self.band) > 0 or self.window == "symmetric",
            f"{path}.band is {self.band}: of crops of {width}x{height} pixels that is less than "
            f"one frequency, so no amplitude would be swapped; add --set {path}.band={least} or "
            "more, or use larger crops",
        )

    def build(self, num_classes: int) -> "Fourier":
        return Fourier(self)


class Fourier(Objective):
    """Cross-entropy of source labels on source images in the target's style."""

    config: FourierConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        """Image k of the source with the amplitudes of image k of the target, whatever it shows."""
        images = swap_amplitude(
            batch.source_images,
            batch.target_images,
            band=self.config.band,
            window=self.config.window,
        ).contiguous(memory_format=torch.channels_last)
        return (View("fourier", images, batch.source_labels),)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert view.labels is not None, "this objective's own view is labeled"
        terms = {"main": segmentation_loss(output, view.labels)}
        if self.config.auxiliary_weight:
            assert output.auxiliary is not None
            auxiliary = cross_entropy(output.auxiliary, view.labels)
            terms["auxiliary"] = self.config.auxiliary_weight * auxiliary
        return terms
