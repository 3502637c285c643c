"""CUT: one generator, whose output has to be recognized, patch by patch, as its input.

Source: Park et al., "Contrastive Learning for Unpaired Image-to-Image Translation", ECCV 2020,
arXiv 2007.15651, equations 1 to 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.translation.discriminators import (
    PatchDiscriminator,
    fooling_loss,
    telling_loss,
    told_apart,
)
from uda.translation.generators import GeneratorConfig
from uda.translation.method import Losses, Method, MethodConfig, Pair
from uda.utilities.errors import require

_EMBEDDING = 256  # dimensions
_SELF = -10.0  # similarity of a patch with itself among the negatives: as good as absent


@dataclass(kw_only=True, slots=True)
class CutConfig(MethodConfig):
    """Settings of `Cut`; FastCUT: `contrast` 10 and `identity` false."""

    contrast: float = 1.0  # weight of the patches
    identity: bool = True  # also for images of the target, which the generator is to leave
    temperature: float = 0.07
    patches: int = 256  # positions that are compared, of each map

    def check(self, path: str) -> None:
        MethodConfig.check(self, path)
        for name in ("contrast", "temperature"):
            value = getattr(self, name)
            require(value > 0, f"{path}.{name} is {value}; allowed: above 0")
        require(self.patches > 1, f"{path}.patches is {self.patches}; allowed: 2 or more")

    def build(self, generator: GeneratorConfig) -> "Cut":
        return Cut(self, generator)


class Cut(Method):
    """The discriminator takes its turn first, as in the released code."""

    order = ("discriminators", "generators")

    def __init__(self, config: CutConfig, generator: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.generator = generator.build()
        self.of_target = PatchDiscriminator(config.discriminator_width)
        self.generator.initialize()
        self.of_target.initialize(xavier=True)
        with torch.no_grad():
            maps = self.generator.features(torch.zeros(1, 3, 32, 32))
        self.heads = nn.ModuleList(_head(values.shape[1]) for values in maps)
        self.semantic = config.semantic_loss()

    def players(self) -> dict[str, nn.ModuleList]:
        return {
            "discriminators": nn.ModuleList([self.of_target]),
            "generators": nn.ModuleList([self.generator, self.heads]),
        }

    def translated(self, pair: Pair) -> dict[str, Tensor]:
        made = {"fake": self.generator(pair.source)}
        return made | ({"same": self.generator(pair.target)} if self.config.identity else {})

    def losses(
        self, player: str, pair: Pair, made: Mapping[str, Tensor], generator: torch.Generator
    ) -> Losses:
        if player == "discriminators":
            fake = made["fake"].detach()
            return {"of_target": telling_loss(self.of_target(pair.target), self.of_target(fake))}
        terms = {"fool_target": fooling_loss(self.of_target(made["fake"]))}
        share = self.config.contrast / (2 if self.config.identity else 1)
        terms["contrast"] = share * self.contrast(pair.source, made["fake"], generator)
        if self.config.identity:
            terms["identity"] = share * self.contrast(pair.target, made["same"], generator)
        return terms | self.semantic_terms(pair, made)

    def contrast(self, images: Tensor, translated: Tensor, generator: torch.Generator) -> Tensor:
        """The mean over maps, images and positions of `patch_nce` (equation 4)."""
        keys, queries = self.generator.features(images), self.generator.features(translated)
        dtype, losses = next(self.heads.parameters()).dtype, []
        for head, key, query in zip(self.heads, keys, queries, strict=True):
            places = torch.randperm(key.shape[2] * key.shape[3], generator=generator)
            places = places[: self.config.patches].to(key.device)
            # Half precision would blur similarities that are divided by the temperature.
            with torch.autocast(key.device.type, enabled=False):
                of_key, of_query = (
                    head(values.to(dtype).flatten(2)[:, :, places].transpose(1, 2))
                    for values in (key, query)
                )
                losses.append(patch_nce(of_query, of_key.detach(), self.config.temperature))
        return torch.stack(losses).mean()

    def told_apart(self, pair: Pair, made: Mapping[str, Tensor]) -> Tensor:
        return told_apart(self.of_target(pair.target), self.of_target(made["fake"]))


class _Normalized(nn.Module):
    def forward(self, values: Tensor) -> Tensor:
        return values / (values.norm(dim=-1, keepdim=True) + 1e-7)


def _head(channels: int) -> nn.Sequential:
    """Embeds (..., channels)."""
    layers: Sequence[nn.Module] = (
        nn.Linear(channels, _EMBEDDING), nn.ReLU(), nn.Linear(_EMBEDDING, _EMBEDDING)
    )  # fmt: skip
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers, _Normalized())


def patch_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Equation 3: each query (N, P, D) has to find the key at its own position among all of its
    image; the mean."""
    similar = queries @ keys.transpose(1, 2)  # (N, P, P)
    own = similar.diagonal(dim1=1, dim2=2).unsqueeze(2)
    others = similar.masked_fill(torch.eye(similar.shape[1], dtype=torch.bool,
                                           device=similar.device), _SELF)  # fmt: skip
    logits = torch.cat([own, others], dim=2).flatten(0, 1) / temperature
    return F.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.long))
