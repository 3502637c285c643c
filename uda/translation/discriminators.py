"""The 70x70 PatchGAN, and the least squares that CycleGAN and CUT play for.

Source: Isola et al., CVPR 2017, arXiv 1611.07004, appendix 6.1.2; Mao et al., "Least Squares
Generative Adversarial Networks", ICCV 2017, arXiv 1611.04076. Parameters have the names of the
original's files.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from uda.translation.generators import to_tanh


class PatchDiscriminator(nn.Module):
    """RGB (N, 3, H, W) in [0, 1] to scores (N, 1, h, w), each of a patch of 70x70 pixels; 30x30 of
    them for a crop of 256x256. The sides are at least 32 pixels."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        leaky = nn.LeakyReLU(0.2, inplace=True)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), leaky]
        channels = width
        for stride in (2, 2, 1):
            layers += [
                nn.Conv2d(channels, 2 * channels, 4, stride=stride, padding=1),
                nn.InstanceNorm2d(2 * channels),
                leaky,
            ]
            channels *= 2
        self.model = nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.model(to_tanh(images))
        return scores

    @torch.no_grad()
    def initialize(self, *, xavier: bool = False) -> None:
        """Samples the weights: N(0, 0.02), or Xavier's with the gain 0.02; biases are 0."""
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                if xavier:
                    nn.init.xavier_normal_(layer.weight, gain=0.02)
                else:
                    nn.init.normal_(layer.weight, 0.0, 0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)


def fooling_loss(scores: Tensor) -> Tensor:
    """What a generator pays for scores of its images: the mean of (D(G(x)) - 1)^2."""
    return (scores - 1).square().mean()


def telling_loss(real: Tensor, fake: Tensor) -> Tensor:
    """What a discriminator pays: half of the mean of (D(y) - 1)^2 plus that of D(G(x))^2."""
    return ((real - 1).square().mean() + fake.square().mean()) / 2


def told_apart(real: Tensor, fake: Tensor) -> Tensor:
    """The share of patches that the discriminator takes for what they are, 0.5 being chance."""
    right: Sequence[Tensor] = ((real > 0.5).float().mean(), (fake <= 0.5).float().mean())
    return torch.stack(list(right)).mean()
