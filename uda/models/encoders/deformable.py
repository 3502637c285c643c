"""Deformable attention over feature maps of several sizes, in plain PyTorch.

Source: Zhu et al., "Deformable DETR", ICLR 2021, arXiv 2010.04159, equation 3. The compiled
operation of its authors samples as torch's grid_sample does with zeros outside of the maps.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Grid = tuple[int, int]  # rows and columns


class DeformableAttention(nn.Module):
    """Each query looks at a few places of each map, near its own, and adds up what it finds."""

    def __init__(self, channels: int, heads: int, *, levels: int, points: int = 4) -> None:
        """Values have half the channels, which `heads` share evenly."""
        super().__init__()
        self.heads = heads
        self.levels = levels
        self.points = points
        self.offsets = nn.Linear(channels, heads * levels * points * 2)
        self.weights = nn.Linear(channels, heads * levels * points)
        self.values = nn.Linear(channels, channels // 2)
        self.out = nn.Linear(channels // 2, channels)
        self.initialize()

    def initialize(self) -> None:
        """Before training, head h looks in a direction of its own, at 1, 2, 3, ... cells' distance,
        and at all of them alike."""
        for layer in (self.offsets, self.weights):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.values, self.out):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack((angles.cos(), angles.sin()), dim=1)
        directions = directions / directions.abs().amax(dim=1, keepdim=True)
        steps = torch.arange(1, self.points + 1)
        bias = directions[:, None, None, :] * steps[:, None]
        with torch.no_grad():
            self.offsets.bias.copy_(bias.expand(-1, self.levels, -1, -1).flatten())

    def forward(
        self, queries: Tensor, places: Tensor, tokens: Tensor, sizes: Sequence[Grid]
    ) -> Tensor:
        """(N, Q, D), for queries of that shape.

        places: (Q, 2), where the queries are: x and y, from 0 to 1.
        tokens: (N, K, D), the cells of the maps, row by row, one map after the other; `sizes` has
            the rows and columns of each map.
        """
        value = self.values(tokens).unflatten(2, (self.heads, -1)).permute(0, 2, 3, 1)
        shape = (self.heads, self.levels, self.points)
        offsets = self.offsets(queries).unflatten(2, (*shape, 2))
        weights = self.weights(queries).unflatten(2, (self.heads, -1)).softmax(-1)
        weights = weights.unflatten(3, shape[1:])
        found = []
        # In float32: half precision cannot tell neighboring places of large maps.
        with torch.autocast(queries.device.type, enabled=False):
            cells = value.split([rows * columns for rows, columns in sizes], dim=3)
            for level, (part, (rows, columns)) in enumerate(zip(cells, sizes, strict=True)):
                cell = places.new_tensor((1 / columns, 1 / rows))
                where = places[:, None, None] + offsets[:, :, :, level].to(places.dtype) * cell
                sampled = F.grid_sample(
                    part.flatten(0, 1).unflatten(2, (rows, columns)).to(places.dtype),
                    (2 * where - 1).transpose(1, 2).flatten(0, 1),
                    align_corners=False,
                )  # (N * heads, channels, Q, points)
                shares = weights[:, :, :, level].transpose(1, 2).flatten(0, 1)
                found.append((sampled * shares[:, None].to(sampled.dtype)).sum(dim=-1))
            total = torch.stack(found).sum(dim=0)
        by_query = total.unflatten(0, (-1, self.heads)).flatten(1, 2).transpose(1, 2)
        return self.out(by_query.to(queries.dtype))


def centers(size: Grid, like: Tensor) -> Tensor:
    """(rows * columns, 2): x and y, from 0 to 1, of the centers of a grid's cells, row by row, at
    least in float32 and on the device of `like`."""
    kind = torch.promote_types(like.dtype, torch.float32)
    rows, columns = (
        (torch.arange(count, dtype=kind, device=like.device) + 0.5) / count for count in size
    )
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack((x, y), dim=-1).flatten(0, 1)
