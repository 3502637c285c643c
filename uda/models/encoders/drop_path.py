"""Stochastic depth for the blocks of transformers.

Source: Huang et al., "Deep Networks with Stochastic Depth", ECCV 2016, arXiv 1603.09382.
"""

from torch import Tensor, nn


class DropPath(nn.Module):
    """Drops a residual branch of a sample with probability `rate` and divides those that stay by
    1 - rate, in training mode only."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """branch: (N, ...) float; one random number for each of the N."""
        if not self.training or self.rate == 0:
            return branch
        stays = branch.new_empty(len(branch), *(1,) * (branch.ndim - 1)).bernoulli_(1 - self.rate)
        return branch * stays / (1 - self.rate)

    def extra_repr(self) -> str:
        return f"rate={self.rate:g}"


def rates(last: float, blocks: int) -> list[float]:
    """The rate of each block: 0 for the first, `last` for the last, evenly spaced between."""
    return [last * number / max(blocks - 1, 1) for number in range(blocks)]
