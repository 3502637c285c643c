"""The heads of DeepLab-v2: summed convolutions, or joined branches with squeeze-and-excitation.

Source: Chen et al., TPAMI 2018, arXiv 1606.00915; layers and names as in
wasidennis/AdaptSegNet@fca9ff0 and layumi/Seg-Uncertainty@6fce9ea.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

_WIDTH = 64  # of the backbone for which the originals' heads have 32 groups
_GROUPS = 32
_REDUCTION = 16  # of channels inside squeeze-and-excitation


def dilated_classifiers(
    in_channels: int, num_classes: int, rates: tuple[int, ...]
) -> nn.ModuleList:
    """3x3 convolutions to classes, one for each dilation, with weights from N(0, 0.01)."""
    found = nn.ModuleList(
        nn.Conv2d(in_channels, num_classes, kernel_size=3, padding=rate, dilation=rate)
        for rate in rates
    )
    for convolution in found:
        nn.init.normal_(convolution.get_parameter("weight"), std=0.01)
    return found


def summed(convolutions: Iterable[nn.Module], features: Tensor) -> Tensor:
    """What the convolutions make of `features`, added up in their order."""
    first, *others = convolutions
    logits: Tensor = first(features)
    for convolution in others:
        logits = logits + convolution(features)
    return logits


class SumHead(nn.Module):
    """Sum of dilated 3x3 convolutions, straight to classes.

    Convolutions that are not summed exist because files have them; they are not trained.
    """

    def __init__(
        self, in_channels: int, num_classes: int, *, rates: tuple[int, ...], summed: int
    ) -> None:
        super().__init__()
        self.conv2d_list = dilated_classifiers(in_channels, num_classes, rates)
        self.summed = summed
        self.conv2d_list[summed:].requires_grad_(False)

    def forward(self, features: Tensor) -> Tensor:
        return summed(self.conv2d_list[: self.summed], features)


class _SqueezeExcitation(nn.Module):
    """Channels scaled by a gate computed from the whole image.

    Source: Hu et al., CVPR 2018, arXiv 1709.01507.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // _REDUCTION)
        self.se = nn.Sequential(
            nn.Linear(channels, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, channels),
            nn.Sigmoid(),
        )

    def forward(self, features: Tensor) -> Tensor:
        scales: Tensor = self.se(features.mean(dim=(2, 3)))
        return features * scales[..., None, None]


class SqueezeExcitationHead(nn.Module):
    """A 1x1 and four dilated 3x3 branches, concatenated and scaled by channel, then 3x3 and 1x1.

    No ReLU follows the bottleneck's normalization. Branches and squeeze-and-excitation keep
    PyTorch's initialization: the original's initialization loop reaches none of them.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        *,
        rates: tuple[int, ...],
        branch: int,
        hidden: int,
        dropout: float,
        norm: Callable[[int], nn.Module],
    ) -> None:
        """`branch` and `hidden`: channels of a branch and of the bottleneck; `norm`: from a number
        of channels."""
        super().__init__()
        joined = (1 + len(rates)) * branch
        dilated = [
            nn.Conv2d(in_channels, branch, kernel_size=3, padding=rate, dilation=rate)
            for rate in rates
        ]
        self.conv2d_list = nn.ModuleList(
            nn.Sequential(convolution, norm(branch), nn.ReLU(inplace=True))
            for convolution in [nn.Conv2d(in_channels, branch, kernel_size=1), *dilated]
        )
        bottleneck = nn.Conv2d(joined, hidden, kernel_size=3, padding=1)
        classifier = nn.Conv2d(hidden, num_classes, kernel_size=1, bias=False)
        self.bottleneck = nn.Sequential(_SqueezeExcitation(joined), bottleneck, norm(hidden))
        self.head = nn.Sequential(nn.Dropout2d(dropout), classifier)
        assert bottleneck.bias is not None
        nn.init.kaiming_normal_(bottleneck.weight, mode="fan_in", nonlinearity="relu")
        nn.init.zeros_(bottleneck.bias)
        nn.init.normal_(classifier.weight, std=0.001)

    def forward(self, features: Tensor) -> Tensor:
        return self.classify(self.embed(features))

    def embed(self, features: Tensor) -> Tensor:
        """What the last layer classifies, (N, hidden, h, w): after the dropout."""
        branches = [branch(features) for branch in self.conv2d_list]
        embedded: Tensor = self.head[0](self.bottleneck(torch.cat(branches, dim=1)))
        return embedded

    def classify(self, embedded: Tensor) -> Tensor:
        """Logits (N, C, h, w) of what `embed` returns."""
        logits: Tensor = self.head[1](embedded)
        return logits


def group_norm(channels: int, *, width: int) -> nn.GroupNorm:
    """32 groups at a backbone width of 64, in proportion at others: with 32, a narrow network would
    have one channel per group, whose mean over an image is constant."""
    most = max(1, _GROUPS * width // _WIDTH)
    groups = max(count for count in range(1, most + 1) if channels % count == 0)
    return nn.GroupNorm(groups, channels)
