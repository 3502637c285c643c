"""Networks that classify an image's class probabilities as source or target, and their files.

Both keep the parameter names of the original code, so that its files load.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.utilities.errors import InputError, require
from uda.utilities.weight_files import fill_from_file, identity

DiscriminatorName = Literal["fully_convolutional", "multi_scale"]

_SLOPE = 0.2  # of every leaky ReLU below zero


class AdversarialConvention(NamedTuple):
    """How a discriminator's score maps are turned into losses; see objectives.functional."""

    source_label: float  # 0 or 1: the label of source maps; target maps have the other
    fool_factor: float  # of the loss that the segmentation network minimizes
    tell_apart_factor: float  # of each of the discriminator's two terms


class Scores(NamedTuple):
    """What a discriminator makes of probabilities."""

    maps: list[Tensor]  # raw scores (N, 1, h, w) float, one map per scale, finest first
    activations: list[list[Tensor]]  # of each map: what its leaky ReLUs returned, without gradient


class Layers:
    """Applies layers, and keeps what leaky ReLUs return."""

    def __init__(self) -> None:
        self.activations: list[Tensor] = []

    def convolve(self, layer: nn.Conv2d, inputs: Tensor) -> Tensor:
        outputs: Tensor = layer(inputs)
        return outputs

    def rectify(self, inputs: Tensor) -> Tensor:
        outputs = F.leaky_relu(inputs, _SLOPE, inplace=True)
        self.activations.append(outputs.detach())
        return outputs


class _Derivative(Layers):
    """Applies the derivative of layers where they have returned these `activations`: without the
    biases, and with each leaky ReLU's slope."""

    def __init__(self, activations: Iterable[Tensor]) -> None:
        super().__init__()
        self._slopes = iter(activations)

    def convolve(self, layer: nn.Conv2d, inputs: Tensor) -> Tensor:
        return F.conv2d(inputs, layer.weight, None, layer.stride, layer.padding)

    def rectify(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = torch.ops.aten.leaky_relu_backward(
            inputs, next(self._slopes).to(inputs.dtype), _SLOPE, True
        )
        return outputs


class Discriminator(nn.Module, ABC):
    """A network that scores class probabilities by domain, at one or more scales. Between its
    convolutions are leaky ReLUs only, so that it is linear around almost all probabilities."""

    convention: ClassVar[AdversarialConvention]
    scales: ClassVar[int] = 1

    def forward(
        self, probabilities: Tensor, activations: list[list[Tensor]] | None = None
    ) -> list[Tensor]:
        """Raw scores (N, 1, h, w) float, one map per scale, finest first.

        probabilities: (N, C, H, W) float in [0, 1]; `activations`: see `score`
        """
        maps = []
        for scale in range(self.scales):
            layers = Layers()
            probabilities = self.reduce(probabilities) if scale else probabilities
            maps.append(self.apply_layers(scale, probabilities, layers))
            if activations is not None:
                activations.append(layers.activations)
        return maps

    def score(self, probabilities: Tensor) -> Scores:
        """The raw scores, and what `slope` needs to know of them."""
        activations: list[list[Tensor]] = []
        return Scores(self(probabilities, activations), activations)

    def slope(self, scale: int, direction: Tensor, scores: Scores) -> Tensor:
        """The derivative (N, 1, h, w) of a scale's map along a direction (N, C, H, W), at the
        probabilities of `scores`. It is differentiable in the weights.
        """
        for _ in range(scale):
            direction = self.reduce(direction)
        return self.apply_layers(scale, direction, _Derivative(scores.activations[scale]))

    def reduce(self, probabilities: Tensor) -> Tensor:
        """What the next scale sees."""
        raise NotImplementedError

    @abstractmethod
    def apply_layers(self, scale: int, inputs: Tensor, layers: Layers) -> Tensor:
        """The map of one scale by `layers`, of what that scale sees."""


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

    def apply_layers(self, scale: int, inputs: Tensor, layers: Layers) -> Tensor:
        """The only map, (N, 1, H // 32, W // 32). Raises InputError below 32 pixels, where it would
        be empty."""
        height, width = inputs.shape[-2:]
        if min(height, width) < 32:
            raise InputError(
                f"the discriminator has stride 32 and got {height}x{width} pixels; allowed: "
                "32x32 or more: use a larger crop"
            )
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            inputs = layers.rectify(layers.convolve(convolution, inputs))
        return layers.convolve(self.classifier, inputs)


class MultiScaleDiscriminator(Discriminator):
    """Three equal nets on the input at full, half and quarter size; maps at strides 8, 16, 32.

    0.35 M parameters per net for 19 classes. Weights are sampled from N(0, 0.02), biases are 0, so
    that initial scores are near 0. Zero padding and no normalization: the original's options for
    both have no effect.

    Source: Zheng and Yang, IJCAI 2020, arXiv 1912.11164, with the net of MUNIT (Huang et al., ECCV
    2018, arXiv 1804.04732); layers as in layumi/Seg-Uncertainty@6fce9ea.
    """

    convention = AdversarialConvention(source_label=1.0, fool_factor=2.0, tell_apart_factor=1.0)
    scales = 3  # maps at strides 8, 16 and 32; sizes are rounded up

    def __init__(self, num_classes: int, width: int = 32) -> None:
        """`width` channels in the first four convolutions, twice as many from there."""
        super().__init__()
        self.cnns = nn.ModuleList(_PatchScorer(num_classes, width) for _ in range(self.scales))
        # Without the border's padding in the mean, pooled probabilities still sum to 1.
        self.pool = nn.AvgPool2d(kernel_size=3, stride=2, padding=1, count_include_pad=False)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.02)
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)

    def reduce(self, probabilities: Tensor) -> Tensor:
        pooled: Tensor = self.pool(probabilities)
        return pooled

    def apply_layers(self, scale: int, inputs: Tensor, layers: Layers) -> Tensor:
        scores: Tensor = self.cnns[scale](inputs, layers)
        return scores


class HeadDiscriminators(nn.ModuleDict):
    """One discriminator of the same kind for each head, "main" and "auxiliary", of a segmentation
    network. Without `trained`, they keep their random initialization."""

    def __init__(
        self, kind: DiscriminatorName, num_classes: int, heads: Iterable[str], *, trained: bool
    ) -> None:
        super().__init__({head: _KINDS[kind](num_classes) for head in heads})
        self.kind, self.trained = kind, trained
        self.requires_grad_(trained)

    def __getitem__(self, head: str) -> Discriminator:
        discriminator = super().__getitem__(head)
        assert isinstance(discriminator, Discriminator)
        return discriminator

    def fill_beside(self, path: Path, *, auxiliary_head: bool) -> str:
        """Loads the discriminators, if they are trained, from files that AdaptSegNet and
        Seg-Uncertainty save next to X.pth: X_D1.pth for the auxiliary head and X_D2.pth for the
        main one, or X_D1.pth for the main head if it is the only one. Without such files they stay
        randomly initialized. Returns which of these it was, with the files' digests.

        Raises InputError when one of two is missing, or a file is of another discriminator.
        """
        numbers = {"auxiliary": 1, "main": 2} if auxiliary_head else {"main": 1}
        files = {n: path.with_name(f"{path.stem}_D{n}{path.suffix}") for n in numbers.values()}
        if not self.trained or not any(file.exists() for file in files.values()):
            return "discriminators randomly initialized"
        taken = {head: files[numbers[head]] for head in self}
        for head, file in taken.items():
            require(
                file.exists(),
                f"{file}, the discriminator of the {head} head, does not exist, but that of the "
                "other head does: add this file, or remove the other, so that both are randomly "
                "initialized",
            )
            fill_from_file(
                self[head],
                file,
                title=f"{self.kind} discriminator of this preset",
                kind="discriminator's state dict",
                instead="choose the other kind with --set objectives.NAME.discriminator="
                f"{' or '.join(kind for kind in _KINDS if kind != self.kind)}, or "
                "remove the file, so that discriminators are randomly initialized",
            )
        return ", ".join(identity(file) for file in sorted(taken.values()))


_KINDS: dict[DiscriminatorName, type[FullyConvolutionalDiscriminator | MultiScaleDiscriminator]] = {
    "fully_convolutional": FullyConvolutionalDiscriminator,
    "multi_scale": MultiScaleDiscriminator,
}


class _Convolution(nn.Module):
    """3x3 convolution with zero padding, and leaky ReLU unless `activation` is False."""

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, activation: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1)
        self.activation = activation

    def forward(self, inputs: Tensor, layers: Layers | None = None) -> Tensor:
        layers = layers or Layers()
        outputs = layers.convolve(self.conv, inputs)
        return layers.rectify(outputs) if self.activation else outputs


class _Residual(nn.Module):
    """Two convolutions added to their input; no activation after the sum."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(
            _Convolution(channels, channels), _Convolution(channels, channels, activation=False)
        )

    def forward(self, inputs: Tensor, layers: Layers | None = None) -> Tensor:
        outputs = inputs
        for layer in self.model:
            outputs = layer(outputs, layers)
        return inputs + outputs


class _PatchScorer(nn.Sequential):
    """One of the nets of `MultiScaleDiscriminator`."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__(
            _Convolution(num_classes, width, stride=2),
            _Convolution(width, width),
            _Convolution(width, width, stride=2),
            _Convolution(width, width),
            _Convolution(width, 2 * width, stride=2),
            *(_Residual(2 * width) for _ in range(4)),
            nn.Conv2d(2 * width, 1, kernel_size=1),
        )

    def forward(self, inputs: Tensor, layers: Layers | None = None) -> Tensor:
        layers = layers or Layers()
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                inputs = layers.convolve(layer, inputs)
            else:
                inputs = layer(inputs, layers)
        return inputs
