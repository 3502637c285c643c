"""A training in progress: the networks, their optimizers and the counter of steps."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uda.checkpoints.stored import load_weights
from uda.optim.optimizers import OptimizerConfig, build_optimizer, load_state, set_learning_rate
from uda.translation.config import Translation
from uda.translation.method import Method, Pair
from uda.utilities.distributed import GradientExchange, joined, rank, world_size
from uda.utilities.errors import require


class Turn(NamedTuple):
    """What a step leaves for the records; reading a figure waits for the device."""

    losses: dict[str, Tensor]  # scalars, detached, by "loss/<player>/<term>"
    pair: Pair
    made: Mapping[str, Tensor]  # what the generators made of the pair


class Game:
    """All that changes during a run. `step` is the number of updates so far."""

    def __init__(self, translation: Translation, *, images: int, device: torch.device) -> None:
        """Random weights from the preset's seed; `images`: those of the larger domain."""
        self.translation, self.device, self.step = translation, device, 0
        self._images = images
        torch.manual_seed(translation.train.seed)
        self.method: Method = translation.method.build(translation.generator).to(device)
        self.players = self.method.players()
        adam = OptimizerConfig(name="adam", lr=translation.train.lr, betas=translation.train.betas)
        self.optimizers = {
            name: build_optimizer(adam, [{"params": list(networks.parameters()), "lr_factor": 1.0}])
            for name, networks in self.players.items()
        }
        several = world_size() > 1
        self._exchanges = {
            name: GradientExchange([networks]) for name, networks in self.players.items() if several
        }

    @property
    def last_step(self) -> int:
        """The number of steps of the run."""
        return self.translation.train.last_step(self._images)

    @property
    def lr(self) -> float:
        """The learning rate of the next step."""
        train = self.translation.train
        return train.lr * train.lr_factor(self.step, self._images)

    def play(self, pair: Pair) -> Turn:
        """One step: every player's turn, in the order of the method."""
        train, method = self.translation.train, self.method
        generator = self._chance()
        bfloat16 = torch.autocast(
            self.device.type, torch.bfloat16, enabled=train.precision == "bfloat16"
        )
        with bfloat16:
            made = {n: images.to(pair.source) for n, images in method.translated(pair).items()}
        found: dict[str, Tensor] = {}
        for player in method.order:
            for name, networks in self.players.items():
                networks.requires_grad_(name == player)
            with bfloat16:
                losses = method.losses(player, pair, made, generator)
            optimizer = self.optimizers[player]
            optimizer.zero_grad(set_to_none=True)
            torch.stack(list(losses.values())).sum().backward()
            if player in self._exchanges:
                self._exchanges[player]()
            set_learning_rate(optimizer, self.lr)
            optimizer.step()
            found |= {f"loss/{player}/{name}": loss.detach() for name, loss in losses.items()}
        for networks in self.players.values():
            networks.requires_grad_(True)
        self.step += 1
        return Turn(found, pair, made)

    def _chance(self) -> torch.Generator:
        """A function of (seed, step, process); dropout draws from torch's own generator."""
        seeds = np.random.SeedSequence((self.translation.train.seed, self.step, rank()))
        first, second = seeds.generate_state(2, np.uint64) >> np.uint64(1)
        torch.manual_seed(int(first))
        return torch.Generator().manual_seed(int(second))

    def state(self) -> dict[str, Any]:
        """All that training changes, the same on all ranks; must be called on all."""
        return {
            "step": self.step,
            "networks": {n: networks.state_dict() for n, networks in self.players.items()},
            "optimizers": {n: optimizer.state_dict() for n, optimizer in self.optimizers.items()},
            "extra": joined([self.method.extra_state()]),  # of each process
        }

    def load_state(self, state: Mapping[str, Any], *, origin: str) -> None:
        """Continues from what `state` returned. Raises InputError when it does not fit."""
        for name, networks in self.players.items():
            load_weights(networks, state["networks"][name], origin=f"{origin}, {name}")
            load_state(self.optimizers[name], state["optimizers"][name], origin=f"{origin}, {name}")
        require(
            len(state["extra"]) == world_size(),
            f"{origin} was written by {len(state['extra'])} processes, each with its own pool of "
            f"images, and there are {world_size()}: resume with as many",
        )
        self.method.load_extra_state(state["extra"][rank()])
        self.step = state["step"]
