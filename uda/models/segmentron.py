"""SegmenTron's DeepLabV3+: separable convolutions in pyramid and decoder, batch normalization.

Source: Chen et al., ECCV 2018, arXiv 1802.02611; written from the parameter names, the structure
and the measured logits of github.com/LikeLy-Journey/SegmenTron, not from its code.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from uda.models.decoders.heads import initialize_heads, refuse_single_image, resized
from uda.models.encoders.base import FeatureMaps
from uda.models.encoders.resnet import ResNetBackbone, ResNetConfig, check_stride
from uda.models.segmenter import SegmentationOutput, Segmenter

_RATES = (6, 12, 18)  # dilations of the pyramid at stride 16


@dataclass(kw_only=True, slots=True)
class SegmenTronConfig(ResNetConfig):
    """Settings of `SegmenTron`; its heads are 4 and 3/4 times as wide as the backbone's stem."""

    output_stride: Literal[8, 16] = (
        16  # of the deepest features; dilations of heads are doubled at 8
    )

    def build(self, num_classes: int) -> "SegmenTron":
        self.check(num_classes)
        self.check_quarters("SegmenTron")
        check_stride(self.output_stride)
        return SegmenTron(self.build_backbone(self.output_stride), self, num_classes)


class SegmenTron(Segmenter):
    """Separable atrous pyramid on the deepest features, refined by the stride-4 ones.

    Below the children of this class, layers are named as in SegmenTron's files.
    """

    def __init__(
        self, backbone: ResNetBackbone, config: SegmenTronConfig, num_classes: int
    ) -> None:
        """Heads around `backbone`, Kaiming-initialized; `config.build` checks the fields."""
        super().__init__(
            backbone,
            provenance=backbone.provenance,
            batch_norm=config.batch_norm,
            align_corners=True,
        )
        width = 4 * config.backbone_width  # 256 on the usual ResNets
        low_level_width = 3 * config.backbone_width // 4  # 48
        self.aspp = _PyramidPooling(
            backbone.channels[-1],
            width,
            rates=tuple(rate * 16 // config.output_stride for rate in _RATES),
            dropout=config.dropout,
        )
        self.low_level = _convolution(backbone.channels[0], low_level_width)
        self.decoder = nn.Sequential(
            _separable_convolution(width + low_level_width, width),
            _separable_convolution(width, width),
            nn.Conv2d(width, num_classes, kernel_size=1),
        )
        # By inputs: torch counts a depthwise convolution's outputs as if all were joined.
        initialize_heads(self.aspp, self.low_level, self.decoder, mode="fan_in")

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`: they never do."""
        return False

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits at stride 4.

        Raises InputError on a single image in training.
        """
        low_level, *_, deep = features
        pyramid = resized(self.aspp(deep), like=low_level, align_corners=self.align_corners)
        joined = torch.cat([pyramid, self.low_level(low_level)], dim=1)
        return SegmentationOutput(logits=self.decoder(joined), auxiliary_logits=None, features=deep)


class _PyramidPooling(nn.Module):
    """ASPP: image-pooling, 1x1 and dilated separable branches, concatenated and projected."""

    def __init__(
        self, in_channels: int, channels: int, *, rates: tuple[int, ...], dropout: float
    ) -> None:
        super().__init__()
        self.pooled = _convolution(in_channels, channels)
        self.branches = nn.ModuleList(
            [
                _convolution(in_channels, channels),
                *(_separable_convolution(in_channels, channels, dilation=r) for r in rates),
            ]
        )
        self.project = _convolution((len(rates) + 2) * channels, channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor) -> Tensor:
        refuse_single_image(
            self.pooled[1],
            features,
            heads="SegmenTron's heads",
            instead="use larger batches, or DeepLabV3PlusConfig with group normalization",
        )
        pooled = self.pooled(features.mean(dim=(2, 3), keepdim=True))
        everywhere = pooled.expand(-1, -1, *features.shape[-2:])
        branches = [branch(features) for branch in self.branches]
        return self.dropout(self.project(torch.cat([everywhere, *branches], dim=1)))


def _convolution(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, normalization, ReLU."""
    layers = OrderedDict[str, nn.Module](
        conv=nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        bn=nn.BatchNorm2d(out_channels),
        relu=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)


def _separable_convolution(
    in_channels: int, out_channels: int, *, dilation: int = 1
) -> nn.Sequential:
    """3x3 on each channel, then 1x1 across them, each with normalization and ReLU."""
    layers = OrderedDict[str, nn.Module](
        depthwise=nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size=3,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        ),
        bn_depth=nn.BatchNorm2d(in_channels),
        relu_depth=nn.ReLU(inplace=True),
        pointwise=nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        bn_point=nn.BatchNorm2d(out_channels),
        relu_point=nn.ReLU(inplace=True),
    )
    return nn.Sequential(layers)
