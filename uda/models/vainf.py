"""VainF's DeepLabV3+: torchvision's pyramid and a decoder of one 3x3 convolution.

Source: Chen et al., ECCV 2018, arXiv 1802.02611; written from the parameter names, the structure
and the measured logits of github.com/VainF/DeepLabV3Plus-Pytorch, not from its code.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from uda.models.decoders.heads import resized
from uda.models.encoders.base import FeatureMaps
from uda.models.encoders.resnet import ResNetBackbone, ResNetConfig, check_stride
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.models.torchvision_deeplabv3 import PyramidPooling, convolution, finish_heads

_RATES = (6, 12, 18)  # dilations of the pyramid at stride 16


@dataclass(kw_only=True, slots=True)
class VainFConfig(ResNetConfig):
    """Settings of `VainF`; its heads are 4 and 3/4 times as wide as the backbone's stem."""

    output_stride: Literal[8, 16] = (
        16  # of the deepest features; dilations of heads are doubled at 8
    )

    def build(self, num_classes: int) -> "VainF":
        self.check(num_classes)
        self.check_quarters("VainF's DeepLabV3+")
        check_stride(self.output_stride)
        return VainF(self.build_backbone(self.output_stride), self, num_classes)


class VainF(Segmenter):
    """Atrous spatial pyramid on the deepest features, refined by the stride-4 ones.

    Below the children of this class, layers are named as in VainF's files.
    """

    def __init__(self, backbone: ResNetBackbone, config: VainFConfig, num_classes: int) -> None:
        """Heads around `backbone`, Kaiming-initialized; `config.build` checks the fields."""
        super().__init__(backbone, provenance=backbone.provenance, batch_norm=config.batch_norm)
        width = 4 * config.backbone_width  # 256 on the usual ResNets
        low_level_width = 3 * config.backbone_width // 4  # 48
        rates = tuple(rate * 16 // config.output_stride for rate in _RATES)
        self.aspp = PyramidPooling(backbone.channels[-1], width, rates=rates)
        self.low_level = convolution(backbone.channels[0], low_level_width, kernel_size=1)
        self.decoder = nn.Sequential(
            *convolution(low_level_width + width, width, kernel_size=3),
            nn.Conv2d(width, num_classes, kernel_size=1),
        )
        finish_heads(self.aspp, self.low_level, self.decoder, dropout=config.dropout)

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
        joined = torch.cat([self.low_level(low_level), pyramid], dim=1)
        return SegmentationOutput(logits=self.decoder(joined), auxiliary_logits=None, features=deep)
