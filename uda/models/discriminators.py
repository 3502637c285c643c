"""Networks that classify an image's class probabilities as source or target.

Both keep the parameter names of the original code, so that its files load.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from uda.utilities.errors import InputError

_SLOPE = 0.2  # of every leaky ReLU below zero


class AdversarialConvention(NamedTuple):
    """How a discriminator's score maps are turned into losses; see objectives.functional."""

    source_label: float  # 0 or 1: the label of source maps; target maps have the other
    fool_factor: float  # of the loss that the segmentation network minimizes
    tell_apart_factor: float  # of each of the discriminator's two terms


class Discriminator(nn.Module, ABC):
    """A network that scores class probabilities by domain, at one or more scales."""

    convention: ClassVar[AdversarialConvention]

    @abstractmethod
    def forward(self, probabilities: Tensor) -> list[Tensor]:
        """Raw scores (N, 1, h, w) float, one map per scale, finest first.

        probabilities: (N, C, H, W) float in [0, 1]
        """


class FullyConvolutionalDiscriminator(Discriminator):
    """Five strided convolutions; one map at stride 32. 2.8 M parameters for 19 classes.

    Weights keep PyTorch's default initialization, as in the original.

    Source: Tsai et al., CVPR 2018, arXiv 1802.10349; layers as in
    wasidennis/AdaptSegNet@fca9ff0.
    """

    convention = AdversarialConvention(source_label=0.0, fool_factor=1.0, tell_apart_factor=0.5)

    def __init__(self, num_classes: int, width: int = 64) -> None:
        """`width` channels after the first convolution, doubled by each of the next three."""
        super().__init__()
        self.conv1 = nn.Conv2d(num_classes, width, kernel_size=4, stride=2, padding=1)
        self.conv2 = nn.Conv2d(width, 2 * width, kernel_size=4, stride=2, padding=1)
        self.conv3 = nn.Conv2d(2 * width, 4 * width, kernel_size=4, stride=2, padding=1)
        self.conv4 = nn.Conv2d(4 * width, 8 * width, kernel_size=4, stride=2, padding=1)
        self.classifier = nn.Conv2d(8 * width, 1, kernel_size=4, stride=2, padding=1)

    def forward(self, probabilities: Tensor) -> list[Tensor]:
        """Raw scores, one map (N, 1, H // 32, W // 32) float.

        probabilities: (N, C, H, W) float in [0, 1]

        Raises InputError below 32 pixels, where the map would be empty.
        """
        height, width = probabilities.shape[-2:]
        if min(height, width) < 32:
            raise InputError(
                f"the discriminator has stride 32 and got {height}x{width} pixels; allowed: "
                "32x32 or more: use a larger crop"
            )
        hidden = probabilities
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            hidden = F.leaky_relu(convolution(hidden), _SLOPE, inplace=True)
        return [self.classifier(hidden)]


class MultiScaleDiscriminator(Discriminator):
    """Three equal nets on the input at full, half and quarter size; maps at strides 8, 16, 32.

    0.35 M parameters per net for 19 classes. Weights are sampled from N(0, 0.02), biases are 0, so
    that initial scores are near 0. Zero padding and no normalization: the original's options for
    both have no effect.

    Source: Zheng and Yang, IJCAI 2020, arXiv 1912.11164, with the net of MUNIT (Huang et al., ECCV
    2018, arXiv 1804.04732); layers as in layumi/Seg-Uncertainty@6fce9ea.
    """

    convention = AdversarialConvention(source_label=1.0, fool_factor=2.0, tell_apart_factor=1.0)

    def __init__(self, num_classes: int, width: int = 32) -> None:
        """`width` channels in the first four convolutions, twice as many from there."""
        super().__init__()
        self.cnns = nn.ModuleList(_patch_scorer(num_classes, width) for _ in range(3))
        # Without the border's padding in the mean, pooled probabilities still sum to 1.
        self.pool = nn.AvgPool2d(kernel_size=3, stride=2, padding=1, count_include_pad=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def forward(self, probabilities: Tensor) -> list[Tensor]:
        """Raw scores, three maps (N, 1, h, w) float at strides 8, 16 and 32; sizes are rounded up.

        probabilities: (N, C, H, W) float in [0, 1]
        """
        maps = []
        for index, cnn in enumerate(self.cnns):
            if index > 0:
                probabilities = self.pool(probabilities)
            maps.append(cnn(probabilities))
        return maps


class _Convolution(nn.Module):
    """3x3 convolution with zero padding, and leaky ReLU unless `activation` is False."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)
        self.activation = activation

    def forward(self, inputs: Tensor) -> Tensor:
        outputs = self.conv(inputs)
        return F.leaky_relu(outputs, _SLOPE, inplace=True) if self.activation else outputs


class _Residual(nn.Module):
    """Two convolutions added to their input; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            _Convolution(channels, channels), _Convolution(channels, channels, activation=False)
        )

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.model(inputs)


def _patch_scorer(num_classes: int, width: int) -> nn.Sequential:
    return nn.Sequential(
        _Convolution(num_classes, width, stride=2),
        _Convolution(width, width),
        _Convolution(width, width, stride=2),
        _Convolution(width, width),
        _Convolution(width, 2 * width, stride=2),
        *(_Residual(2 * width) for _ in range(4)),
        nn.Conv2d(2 * width, 1, kernel_size=1),
    )
