"""CycleGAN: two generators, there and back, whose way back has to return what was given.

Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks", ICCV 2017, arXiv 1703.10593: equations 1 to 3, with least squares (section 4) and the
identity term (section 5.2). The semantic term is CyCADA's, arXiv 1711.03213.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from uda.translation.discriminators import (
    PatchDiscriminator,
    fooling_loss,
    telling_loss,
    told_apart,
)
from uda.translation.generators import GeneratorConfig, to_tanh
from uda.translation.image_pool import ImagePool
from uda.translation.method import Losses, Method, MethodConfig, Pair
from uda.utilities.errors import require


@dataclass(kw_only=True, slots=True)
class CycleGanConfig(MethodConfig):
    """Settings of `CycleGan`."""

    cycle: float = 10.0  # weight of the way there and back
    identity: float = 0.5  # weight, as a factor of `cycle`, of leaving images of one's own domain
    pool: int = 50  # earlier translations that a discriminator may be shown; 0: none

    def check(self, path: str) -> None:
        MethodConfig.check(self, path)
        require(
            self.cycle > 0,
            f"{path}.cycle is {self.cycle}: nothing would tie a translation to its image, and "
            f"{path}.identity, a factor of it, would count for nothing; allowed: above 0",
        )
        for name in ("identity", "pool"):
            value = getattr(self, name)
            require(value >= 0, f"{path}.{name} is {value}; allowed: 0 or more")

    def build(self, generator: GeneratorConfig) -> "CycleGan":
        return CycleGan(self, generator)


class CycleGan(Method):
    """The generators take their turn first, as in the released code."""

    order = ("generators", "discriminators")

    def __init__(self, config: CycleGanConfig, generator: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.generator, self.back = generator.build(), generator.build()  # G and F of the paper
        self.of_target = PatchDiscriminator(config.discriminator_width)
        self.of_source = PatchDiscriminator(config.discriminator_width)
        for network in (self.generator, self.back, self.of_target, self.of_source):
            network.initialize()
        self.pools = {"fake": ImagePool(config.pool), "back": ImagePool(config.pool)}
        self.semantic = config.semantic_loss()

    def players(self) -> dict[str, nn.ModuleList]:
        return {
            "generators": nn.ModuleList([self.generator, self.back]),
            "discriminators": nn.ModuleList([self.of_target, self.of_source]),
        }

    def translated(self, pair: Pair) -> dict[str, Tensor]:
        fake, back = self.generator(pair.source), self.back(pair.target)
        return {
            "fake": fake,
            "back": back,
            "source again": self.back(fake),
            "target again": self.generator(back),
        }

    def losses(
        self, player: str, pair: Pair, made: Mapping[str, Tensor], generator: torch.Generator
    ) -> Losses:
        if player == "discriminators":
            fake, back = (self.pools[n].exchanged(made[n], generator) for n in ("fake", "back"))
            return {
                "of_target": telling_loss(self.of_target(pair.target), self.of_target(fake)),
                "of_source": telling_loss(self.of_source(pair.source), self.of_source(back)),
            }
        terms = {
            "fool_target": fooling_loss(self.of_target(made["fake"])),
            "fool_source": fooling_loss(self.of_source(made["back"])),
            "cycle": self.config.cycle
            * (distance(made["source again"], pair.source)
               + distance(made["target again"], pair.target)),
        }  # fmt: skip
        if self.config.identity:
            kept = distance(self.generator(pair.target), pair.target)
            kept = kept + distance(self.back(pair.source), pair.source)
            terms["identity"] = self.config.identity * self.config.cycle * kept
        return terms | self.semantic_terms(pair, made)

    def told_apart(self, pair: Pair, made: Mapping[str, Tensor]) -> Tensor:
        return told_apart(self.of_target(pair.target), self.of_target(made["fake"]))

    def extra_state(self) -> dict[str, Tensor | None]:
        return {name: pool.state() for name, pool in self.pools.items()}

    def load_extra_state(self, state: Mapping[str, Tensor | None]) -> None:
        device = next(self.parameters()).device
        for name, pool in self.pools.items():
            pool.load_state(state[name], device)


def distance(images: Tensor, others: Tensor) -> Tensor:
    """The mean absolute difference, in the range [-1, 1] of the networks."""
    return (to_tanh(images) - to_tanh(others)).abs().mean()
