"""torchvision's DeepLabV3: its heads on our ResNet, with or without the auxiliary head.

Source: Chen et al., arXiv 1706.05587; the pyramid and the auxiliary head are torchvision's own
modules.
"""

from dataclasses import dataclass

from torch import Tensor, nn
from torchvision.models.segmentation.deeplabv3 import ASPP
from torchvision.models.segmentation.fcn import FCNHead

from uda.models.decoders.heads import initialize_heads, refuse_single_image
from uda.models.encoders.base import FeatureMaps
from uda.models.encoders.resnet import ResNetBackbone, ResNetConfig
from uda.models.segmenter import SegmentationOutput, Segmenter

_RATES = (12, 24, 36)  # dilations of the pyramid


@dataclass(kw_only=True, slots=True)
class TorchvisionDeepLabV3Config(ResNetConfig):
    """Settings of `TorchvisionDeepLabV3`; its pyramid is 4 times as wide as the backbone's stem.

    `dropout` is of both heads; torchvision fixes 0.5 in the pyramid and 0.1 in the auxiliary head.
    """

    auxiliary_head: bool = True

    @property
    def has_auxiliary_head(self) -> bool:
        return self.auxiliary_head

    @property
    def auxiliary_switch(self) -> tuple[str, str]:
        return "auxiliary_head", "false"

    def build(self, num_classes: int) -> "TorchvisionDeepLabV3":
        self.check(num_classes)
        return TorchvisionDeepLabV3(self.build_backbone(output_stride=8), self, num_classes)


class TorchvisionDeepLabV3(Segmenter):
    """Atrous spatial pyramid on the deepest features, and optionally an FCN head on layer3's.

    Below the children of this class, layers are named as in torchvision's files.
    """

    def __init__(
        self, backbone: ResNetBackbone, config: TorchvisionDeepLabV3Config, num_classes: int
    ) -> None:
        """Heads around `backbone`, Kaiming-initialized; `config.build` checks the fields."""
        super().__init__(backbone, provenance=backbone.provenance, batch_norm=config.batch_norm)
        width = 4 * config.backbone_width  # 256 on the usual ResNets
        self.main = nn.Sequential(
            PyramidPooling(backbone.channels[-1], width, rates=_RATES),
            *convolution(width, width, kernel_size=3),
            nn.Conv2d(width, num_classes, kernel_size=1),
        )
        self.auxiliary: nn.Module | None = None
        if config.auxiliary_head:
            self.auxiliary = FCNHead(backbone.channels[-2], num_classes)
        finish_heads(*filter(None, (self.main, self.auxiliary)), dropout=config.dropout)

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`."""
        return self.auxiliary is not None

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Each head's logits at stride 8.

        Raises InputError on a single image in training.
        """
        *_, middle, deep = features
        return SegmentationOutput(
            logits=self.main(deep),
            auxiliary_logits=None if self.auxiliary is None else self.auxiliary(middle),
            features=deep,
        )


class PyramidPooling(ASPP):  # type: ignore[misc]  # torchvision is Any to mypy
    """torchvision's ASPP (1x1, dilated and image-pooling branches, then a projection), with a
    clear error for training on one image."""

    def __init__(self, in_channels: int, channels: int, *, rates: tuple[int, ...]) -> None:
        super().__init__(in_channels, rates, channels)

    def forward(self, features: Tensor) -> Tensor:
        """(N, channels, h, w) of `features` (N, in_channels, h, w).

        Raises InputError on a single image in training.
        """
        _, _, norm, _ = self.convs[-1].children()  # pooling, convolution, norm, ReLU
        refuse_single_image(
            norm,
            features,
            heads="the heads of this network",
            instead="use larger batches, or DeepLabV3PlusConfig with group normalization",
        )
        return super().forward(features)


def convolution(in_channels: int, out_channels: int, *, kernel_size: int) -> nn.Sequential:
    """Convolution that keeps the size, normalization, ReLU.

    kernel_size: odd
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def finish_heads(*heads: nn.Module, dropout: float) -> None:
    """Sets every dropout of the heads and initializes them."""
    for head in heads:
        for layer in head.modules():
            if isinstance(layer, nn.Dropout):
                layer.p = dropout
    initialize_heads(*heads)
