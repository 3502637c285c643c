"""Feature distance of VFM-UDA++: the student's deepest features, projected, stay close to those of
a frozen foundation model, on images of both domains.

Source: Englert et al., arXiv 2503.10685, and its code at effbb03b.
"""

from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch, View
from uda.models.decoders.linear import LinearConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.objectives.base import Need, Objective, ObjectiveConfig, StepContext
from uda.objectives.functional.frozen_features import deepest, distance, projector
from uda.optim.optimizers import OptimizerConfig
from uda.utilities.errors import InputError, require, require_share, require_size


@dataclass(kw_only=True, slots=True)
class FrozenDistanceConfig(ObjectiveConfig):
    """Settings of `FrozenDistance`."""

    weight: float = 0.1
    domains: Literal["both", "source", "target"] = "both"
    # The frozen encoder, such as dinov2_vitl14_reg, and the path of its file; none: the student's
    # own network as it begins.
    encoder: str | None = None
    weights: str = "none"
    size: tuple[int, int] | None = None  # images are resized to this for it: 406,406 in the paper
    cosine: float = 0.9  # share of 1 - cosine; the rest is the share of the smooth L1 distance
    jitter: AnyJitter | None = None  # of the images, the same for both networks
    optimizer: OptimizerConfig = field(  # of the projector
        default_factory=partial(OptimizerConfig, name="adamw", lr=5e-5, weight_decay=0.01)
    )

    def needs(self) -> frozenset[Need]:
        return frozenset({"source", "target"} if self.domains == "both" else {self.domains})

    def adds(self) -> frozenset[str]:
        return frozenset(f"distance_{domain}" for domain in self.needs())

    reads = adds

    def idle(self) -> dict[str, str]:
        return {} if self.encoder else {"weights": "encoder is none: the student's own are kept"}

    def check(self, path: str) -> None:
        super().check(path)
        require_share(f"{path}.cosine", self.cosine)
        require(
            self.encoder is None or self.weights != "none",
            f"{path}.weights is none, but {path}.encoder is {self.encoder}, which a random network "
            f"cannot stand for: add --set {path}.weights=FILE",
        )
        if self.size is not None:
            require_size(f"{path}.size", self.size)

    def build(self, num_classes: int) -> "FrozenDistance":
        return FrozenDistance(self)


class FrozenDistance(Objective):
    """A forward pass of the student for each domain, on images as they are or jittered."""

    config: FrozenDistanceConfig

    def __init__(self, config: FrozenDistanceConfig) -> None:
        super().__init__(config)
        self.optimizer = config.optimizer
        self.frozen: Segmenter | None = None
        self.projector: nn.Sequential | None = None

    def attach(self, student: Segmenter) -> None:
        frozen = deepcopy(student) if self.config.encoder is None else self._named()
        self.frozen = frozen.requires_grad_(False)
        if self.projector is None:  # the optimizer knows its parameters already in a second call
            self.projector = projector(deepest(student), deepest(self.frozen))

    def _named(self) -> Segmenter:
        """A network around the encoder of that name; only its features are used."""
        config = EncoderConfig(name=self.config.encoder or "", weights=self.config.weights)
        try:
            return EncoderDecoderConfig(encoder=config, decoder=LinearConfig()).build(1)
        except InputError as error:
            raise InputError(f"the encoder of an objective's frozen features: {error}") from None

    def views(self, batch: Batch, context: StepContext) -> tuple[View, ...]:
        plain = {"distance_source": batch.source_images, "distance_target": batch.target_images}
        views = []
        for name in sorted(self.config.adds()):
            images, own = plain[name], context.generators(name)
            if self.config.jitter is not None:
                images = jitter(images, self.config.jitter, own, context.batch_generator(name))
            views.append(View(name, images))
        return tuple(views)

    def terms(
        self, view: View, output: SegmentationOutput, context: StepContext
    ) -> dict[str, Tensor]:
        assert self.frozen is not None, "attach() was called"
        assert self.projector is not None
        images = view.images
        with torch.no_grad():
            if self.config.size is not None:
                images = F.interpolate(images, self.config.size, mode="bilinear")
            wanted = self.frozen.eval().coarse(images).features.float()
        loss = distance(self.projector(output.features), wanted, cosine=self.config.cosine)
        return {view.name.removeprefix("distance_"): loss}
