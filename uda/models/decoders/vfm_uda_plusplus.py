"""The pyramid head of VFM-UDA++: from the deepest map up, step by step.

Source: Englert et al., arXiv 2503.10685, and its code at effbb03b.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.base import DecoderConfig
from uda.models.decoders.heads import resized
from uda.models.encoders.base import FeatureMaps, FeatureShapes
from uda.utilities.errors import require

_MOMENTUM = 0.01
_CLASSIFIER_STD = 0.1


@dataclass(kw_only=True, slots=True)
class VfmUdaPlusPlusConfig(DecoderConfig):
    """Settings of `VfmUdaPlusPlus`: it has none. The original has no dropout: model.dropout=0."""

    def check(self, maps: FeatureShapes) -> None:
        unit = 2 ** (len(maps.channels) - 1)
        require(
            maps.channels[-1] % unit == 0,
            f"the decoder halves the channels {len(maps.channels) - 1} times, and the deepest map "
            f"has {maps.channels[-1]}; allowed: multiples of {unit}",
        )

    def build(self, maps: FeatureShapes, *, num_classes: int, dropout: float) -> "VfmUdaPlusPlus":
        return VfmUdaPlusPlus(maps.channels, num_classes, dropout=dropout)


class VfmUdaPlusPlus(nn.Module):
    """Each step doubles the size, halves the channels, and adds the next finer map."""

    def __init__(self, inputs: Sequence[int], num_classes: int, *, dropout: float) -> None:
        super().__init__()
        widths = [inputs[-1] // 2**step for step in range(len(inputs))]
        self.steps = nn.ModuleList(
            _Step(before, finer, after)
            for before, after, finer in zip(widths, widths[1:], inputs[-2::-1], strict=False)
        )
        self.last = nn.Conv2d(widths[-1], widths[-1], kernel_size=3, padding=1)
        self.dropout = nn.Dropout2d(dropout)
        self.out = nn.Conv2d(widths[-1], num_classes, kernel_size=1, bias=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d) and layer.bias is not None:
                fan = "fan_out" if isinstance(layer, nn.ConvTranspose2d) else "fan_in"
                nn.init.kaiming_uniform_(layer.weight, mode=fan)  # type: ignore[arg-type]
                nn.init.zeros_(layer.bias)
        nn.init.normal_(self.out.weight, std=_CLASSIFIER_STD)

    def forward(self, features: FeatureMaps) -> Tensor:
        """Logits at the size of the finest map."""
        *finer, merged = features
        for step, feature in zip(self.steps, reversed(finer), strict=True):
            merged = step(merged, feature)
        return self.out(self.dropout(self.last(merged)))


class _Step(nn.Module):
    def __init__(self, before: int, finer: int, after: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(before, after, kernel_size=2, stride=2)
        self.side = nn.Conv2d(finer, after, kernel_size=1)
        self.mix = nn.Conv2d(after, after, kernel_size=3, padding=1)
        self.norm = nn.BatchNorm2d(after, momentum=_MOMENTUM)

    def forward(self, coarse: Tensor, finer: Tensor) -> Tensor:
        side, up = self.side(finer), self.up(coarse)
        if up.shape != side.shape:  # of encoders whose strides do not double
            up = resized(up, like=side)
        return F.relu(self.norm(self.mix(up + side)))
