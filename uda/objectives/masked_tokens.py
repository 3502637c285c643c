"""Masked image consistency for plain vision transformers: from an image of which most tokens are
hidden, the student learns the labels that a teacher gives to the whole image.

Source: Hoyer et al., "MIC", CVPR 2023, arXiv 2212.01322, with hidden tokens in the
place of patches: Englert et al., "VFM-UDA", CVPRW 2024, arXiv 2406.09896.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.objectives.base import Need, StepContext
from uda.objectives.functional.losses import Denominator
from uda.objectives.functional.pseudo_labels import ConfidenceRule
from uda.objectives.functional.target_jitter import jittered_target
from uda.objectives.teacher_labels import TeacherLabels, TeacherLabelsConfig
from uda.utilities.errors import require_share


@dataclass(kw_only=True, slots=True)
class MaskedTokensConfig(TeacherLabelsConfig):
    """Settings of `MaskedTokens`."""

    threshold: float = 0.968
    confidence: ConfidenceRule = "batch_share"
    over: Denominator = "all"
    hidden: float = 0.7  # the chance of each token to be hidden
    # Of the target image, as in ClassMixConfig; then of the masked image.
    target_jitter: AnyJitter | None = None
    jitter: AnyJitter | None = None

    def needs(self) -> frozenset[Need]:
        return super().needs() | {"mask_token"}

    def adds(self) -> frozenset[str]:
        return frozenset({"masked_tokens"})

    def reads(self) -> frozenset[str]:
        return frozenset({"masked_tokens"})

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.hidden", self.hidden)

    def idle(self) -> dict[str, str]:
        return super().idle() | {"over": "every pixel of the masked image has a label"}

    def build(self, num_classes: int) -> "MaskedTokens":
        return MaskedTokens(self)


class MaskedTokens(TeacherLabels):
    """The student sees each token of the target images with probability 1 - `hidden`."""

    config: MaskedTokensConfig

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        labels, weights = self.labeled(batch, context)
        images = jittered_target(batch, self.config.target_jitter, context).target_images
        if self.config.jitter is not None:
            purpose = "masked_tokens_jitter"
            own, common = context.generators(purpose), context.batch_generator(purpose)
            images = jitter(images, self.config.jitter, own, common)
        hide = partial(_hidden, context.generators("masked_tokens"), self.config.hidden)
        return (View("masked_tokens", images, labels, weights, hide_tokens=hide),)


def _hidden(generators: Sequence[torch.Generator], share: float, rows: int, columns: int) -> Tensor:
    """Which tokens (N, h, w) of a grid are hidden, each by a draw of its own."""
    draws = [torch.rand(rows, columns, generator=generator) for generator in generators]
    return torch.stack(draws) < share
