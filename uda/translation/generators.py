"""CycleGAN's generator: a residual network from images to images of the same size.

Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks", ICCV 2017, arXiv 1703.10593, appendix 7.2; the antialiased form is that of CUT, Park et
al., ECCV 2020, arXiv 2007.15651. Parameters have the names of the original's files.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.utilities.errors import require

_MULTIPLE = 4  # two halvings


@dataclass(kw_only=True, slots=True)
class GeneratorConfig:
    """Settings of `ResnetGenerator`."""

    blocks: int = 9  # residual; the original has 6 for crops below 256
    width: int = 64  # channels at full resolution
    dropout: bool = False  # between the convolutions of a block
    antialias: bool = False  # blur before and after the steps of resolution, as in CUT

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        require(1 <= self.blocks <= 64, f"{path}.blocks is {self.blocks}; allowed: 1 to 64")
        require(16 <= self.width <= 512, f"{path}.width is {self.width}; allowed: 16 to 512")

    def build(self) -> "ResnetGenerator":
        return ResnetGenerator(self)


class ResnetGenerator(nn.Module):
    """RGB (N, 3, H, W) in [0, 1] to the same, for any height and width above 8 pixels."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        layers: list[nn.Module] = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), *_norm(width)]
        self.places = [0]  # of `model`, whose results `features` returns: CUT's
        for channels in (width, 2 * width):
            self.places.append(len(layers))
            layers += _halving(channels, antialias=config.antialias)
        first = len(layers)
        self.places += sorted({first, first + min(4, config.blocks - 1)})
        layers += [ResidualBlock(4 * width, dropout=config.dropout) for _ in range(config.blocks)]
        for channels in (4 * width, 2 * width):
            layers += _doubling(channels, antialias=config.antialias)
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return from_tanh(self.model(to_tanh(padded(images))))[..., :height, :width]

    def features(self, images: Tensor) -> list[Tensor]:
        """Maps of the encoding half, from shallow to deep: the padded image, the convolutions that
        halve it, and the first and the fifth residual block (arXiv 2007.15651, appendix C)."""
        found, values = [], to_tanh(padded(images))
        for place, layer in enumerate(self.model[: self.places[-1] + 1]):
            values = layer(values)
            if place in self.places:
                found.append(values)
        return found

    @torch.no_grad()
    def initialize(self, generator: torch.Generator | None = None) -> None:
        """Samples the weights of all convolutions: N(0, 0.02), or, for CUT's antialiased network,
        Xavier's with the gain 0.02; biases are 0."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                if self.config.antialias:
                    nn.init.xavier_normal_(layer.weight, gain=0.02, generator=generator)
                else:
                    nn.init.normal_(layer.weight, 0.0, 0.02, generator=generator)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """Adds to a map what two convolutions make of it."""

    def __init__(self, channels: int, *, dropout: bool) -> None:
        super().__init__()
        convolution = (nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3))
        between = (nn.Dropout(0.5),) if dropout else ()
        self.conv_block = nn.Sequential(
            *convolution,
            *_norm(channels),
            *between,
            nn.ReflectionPad2d(1),
            nn.Conv2d(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, values: Tensor) -> Tensor:
        found: Tensor = values + self.conv_block(values)
        return found


class Blur(nn.Module):
    """Halves a map: the binomial filter 1 2 1, then every second pixel (Zhang, ICML 2019)."""

    def forward(self, values: Tensor) -> Tensor:
        return blurred(F.pad(values, (1, 1, 1, 1), mode="reflect"))


class BlurredDouble(nn.Module):
    """Doubles a map with the filter 1 3 3 1, which is bilinear interpolation."""

    def forward(self, values: Tensor) -> Tensor:
        return F.interpolate(values, scale_factor=2, mode="bilinear")


def blurred(values: Tensor) -> Tensor:
    """What `Blur` makes of a map that has its border already."""
    taps = values.new_tensor([1.0, 2.0, 1.0]) / 4
    kernel = torch.outer(taps, taps).expand(values.shape[1], 1, 3, 3)
    return F.conv2d(values, kernel, stride=2, groups=values.shape[1])


def _norm(channels: int) -> Sequence[nn.Module]:
    """Instance norm has neither weights nor running statistics."""
    return nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)


def _halving(channels: int, *, antialias: bool) -> Sequence[nn.Module]:
    stride = 1 if antialias else 2
    convolution = nn.Conv2d(channels, 2 * channels, 3, stride=stride, padding=1)
    return convolution, *_norm(2 * channels), *([Blur()] if antialias else [])


def _doubling(channels: int, *, antialias: bool) -> Sequence[nn.Module]:
    half = channels // 2
    if antialias:
        return BlurredDouble(), nn.Conv2d(channels, half, 3, padding=1), *_norm(half)
    convolution = nn.ConvTranspose2d(channels, half, 3, stride=2, padding=1, output_padding=1)
    return convolution, *_norm(half)


def padded(images: Tensor) -> Tensor:
    """Images reflected on the right and at the bottom up to multiples of 4 pixels."""
    height, width = images.shape[-2:]
    below, right = -height % _MULTIPLE, -width % _MULTIPLE
    return F.pad(images, (0, right, 0, below), mode="reflect") if below or right else images


def to_tanh(images: Tensor) -> Tensor:
    """From [0, 1] to [-1, 1], the range of the networks."""
    return images * 2 - 1


def from_tanh(images: Tensor) -> Tensor:
    """From [-1, 1] to [0, 1]."""
    return (images + 1) / 2
