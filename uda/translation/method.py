"""What CycleGAN and CUT have in common: players that take turns, each with its losses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from uda.translation.generators import GeneratorConfig, ResnetGenerator
from uda.translation.semantic import SemanticConfig, SemanticLoss
from uda.utilities.errors import require

Losses = dict[str, Tensor]  # weighted terms, whose sum a player minimizes


class Pair(NamedTuple):
    """Images of both domains, not of the same scene."""

    source: Tensor  # (N, 3, H, W) float RGB in [0, 1]
    target: Tensor  # (N, 3, H, W) float RGB in [0, 1]
    source_labels: Tensor | None  # (N, H, W) int64 train ids, 255 ignored


class Method(nn.Module, ABC):
    """The networks of a way to learn a translation, and what each player pays in a step."""

    generator: ResnetGenerator  # from source to target: what `uda translate` applies
    order: tuple[str, ...]  # the players, in the order of their turns
    semantic: SemanticLoss | None

    @abstractmethod
    def players(self) -> dict[str, nn.ModuleList]:
        """The networks that each player trains, with an optimizer of its own."""

    @abstractmethod
    def translated(self, pair: Pair) -> dict[str, Tensor]:
        """What the generators make of the images, with the graph: `fake`, of the source, and what
        else the losses need. Once per step, before the first turn."""

    @abstractmethod
    def losses(
        self, player: str, pair: Pair, made: Mapping[str, Tensor], generator: torch.Generator
    ) -> Losses:
        """The terms that `player` minimizes; the other players are frozen meanwhile.

        generator: of the CPU, for all chance; a function of seed, step and process
        """

    @abstractmethod
    def told_apart(self, pair: Pair, made: Mapping[str, Tensor]) -> Tensor:
        """The share of patches that the target's discriminator takes for what they are."""

    def semantic_terms(self, pair: Pair, made: Mapping[str, Tensor]) -> Losses:
        """CyCADA's terms, where there is such a loss: for what became of the source and, where an
        image of the target is translated back, of that."""
        if self.semantic is None:
            return {}
        terms = {"semantic": self.semantic(pair.source, made["fake"], pair.source_labels)}
        if "back" in made:
            terms["semantic_back"] = self.semantic(pair.target, made["back"], None)
        return terms

    def extra_state(self) -> dict[str, Tensor | None]:
        """What a step changes beside weights."""
        return {}

    def load_extra_state(self, state: Mapping[str, Tensor | None]) -> None:
        """Restores what `extra_state` returned."""


@dataclass(kw_only=True, slots=True)
class MethodConfig(ABC):
    """Settings of a method."""

    discriminator_width: int = 64  # channels of its first layer
    semantic: SemanticConfig | None = None

    @property
    def title(self) -> str:
        return type(self).__name__.removesuffix("Config")

    def semantic_loss(self) -> SemanticLoss | None:
        return None if self.semantic is None else SemanticLoss(self.semantic)

    @property
    def reads_labels(self) -> bool:
        """Whether the source's labels are learned from."""
        return self.semantic is not None and self.semantic.labels == "true"

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        width = self.discriminator_width
        require(1 <= width <= 512, f"{path}.discriminator_width is {width}; allowed: 1 to 512")
        if self.semantic is not None:
            self.semantic.check(f"{path}.semantic")

    @abstractmethod
    def build(self, generator: GeneratorConfig) -> Method: ...
