"""DeepLab-v2 on a Caffe-style ResNet, as AdaptSegNet and Seg-Uncertainty build it.

Source: Chen et al., TPAMI 2018, arXiv 1606.00915; layers and names as in
wasidennis/AdaptSegNet@fca9ff0 (head "sum") and layumi/Seg-Uncertainty@6fce9ea ("se_group_norm", or
"se_batch_norm" with its option norm_style=bn).
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.deeplabv2_heads import SqueezeExcitationHead, SumHead, group_norm
from uda.models.encoders.base import FeatureMaps
from uda.models.encoders.resnet import (
    NormLayer,
    ResNetBackbone,
    ResNetConfig,
    caffe_resnet_backbone,
)
from uda.models.segmenter import SegmentationOutput, Segmenter
from uda.utilities.errors import InputError, require

HeadKind = Literal["sum", "se_group_norm", "se_batch_norm"]

_RATES = (6, 12, 18, 24)


@dataclass(kw_only=True, slots=True)
class DeepLabV2Config(ResNetConfig):
    """Settings of `DeepLabV2`.

    AdaptSegNet's network is head="sum", aspp_branches=2, dropout=0 at levels 2 or 1 (the
    single-level one of hi-space/SSL-Synthetic-Segmentation too), Seg-Uncertainty's the defaults;
    both with batch_norm="frozen_affine". `backbone_weights` is "none" or the path of a Caffe
    ResNet's file: "imagenet", torchvision's weights, is refused.
    """

    levels: Literal[1, 2] = 2  # 2: an auxiliary head on layer3 in addition to the main one
    # sum: summed dilated convolutions, the main head on layer4; se_group_norm: concatenated
    # branches, squeeze-and-excitation and group normalization, the main head on layer4 and layer3;
    # se_batch_norm: the same with batch normalization.
    head: HeadKind = "se_group_norm"
    aspp_rates: tuple[int, ...] = _RATES  # dilations of the four branches
    # How many of the four are used. AdaptSegNet returns early from its loop: it sums the first 2.
    aspp_branches: Literal[2, 4] = 4
    ceil_mode: bool = True  # of the max-pool: 360 pixels become 46 features instead of 45
    align_corners: bool = True  # of the logits' bilinear resize
    # A training batch is split into this many parts, each normalized by its own statistics; running
    # statistics follow the first part only, as with nn.DataParallel on as many GPUs.
    batch_norm_parts: int = 1

    @property
    def has_auxiliary_head(self) -> bool:
        return self.levels == 2

    @property
    def auxiliary_switch(self) -> tuple[str, str]:
        return "levels", "1"

    def build(self, num_classes: int) -> "DeepLabV2":
        self.check(num_classes)
        _check(self)
        parts = self.batch_norm_parts
        norm: NormLayer = nn.BatchNorm2d
        if parts > 1:
            norm = partial(PartwiseBatchNorm2d, parts=parts)
        backbone = caffe_resnet_backbone(
            self.backbone,
            width=self.backbone_width,
            weights=self.backbone_weights,
            ceil_mode=self.ceil_mode,
            norm=norm,
        )
        return DeepLabV2(backbone, self, num_classes)


class DeepLabV2(Segmenter):
    """Dilated convolutions on the deepest features, and on layer3 for an auxiliary head.

    Under its prefix a module's names are the originals': `backbone.` has none there, `auxiliary.`
    is `layer5.`, `main.` is `layer6.`, or `layer5.` in the single-level network.
    """

    def __init__(self, backbone: ResNetBackbone, config: DeepLabV2Config, num_classes: int) -> None:
        """Heads around `backbone`, initialized as there; `config.build` checks the fields."""
        super().__init__(
            backbone,
            provenance=backbone.provenance,
            batch_norm=config.batch_norm,
            align_corners=config.align_corners,
            normalization=backbone.normalization,
        )
        *_, middle, deep = backbone.channels
        self.joins_levels = config.head != "sum"
        self.auxiliary: nn.Module | None = None
        if config.levels == 2:
            self.auxiliary = _head(middle, num_classes, config)
        joined = deep + (middle if self.joins_levels else 0)
        self.main = _head(joined, num_classes, config)

    @property
    def has_auxiliary_head(self) -> bool:
        """Whether outputs carry `auxiliary_logits`."""
        return self.auxiliary is not None

    def decode(self, features: FeatureMaps) -> SegmentationOutput:
        """Logits of each head at stride 8; the originals predict from 0.5 auxiliary + main.

        Raises InputError on a training batch of fewer than `batch_norm_parts` images.
        """
        *_, middle, deep = features
        return SegmentationOutput(
            logits=self.main(torch.cat([deep, middle], dim=1) if self.joins_levels else deep),
            auxiliary_logits=None if self.auxiliary is None else self.auxiliary(middle),
            features=deep,
        )


class PartwiseBatchNorm2d(nn.BatchNorm2d):
    """Batch normalization of each part of a training batch; the state dict is that of BatchNorm2d.

    Parts are those of `torch.chunk`, as in nn.DataParallel, where the first GPU's statistics are
    kept: running statistics follow the first part. A cumulative average (momentum None) is only
    used outside of training, by `reestimate_batch_norm`, and is over whole batches.
    """

    def __init__(self, num_features: int, *, parts: int) -> None:
        super().__init__(num_features)
        self.parts = parts

    def forward(self, inputs: Tensor) -> Tensor:
        """Normalized inputs, of the same shape.

        inputs: (N, C, H, W) float

        Raises InputError in training when the batch has fewer images than parts.
        """
        if not self.training or self.momentum is None:
            return super().forward(inputs)
        if len(inputs) < self.parts:
            raise InputError(
                f"a batch has {len(inputs)} images and model.batch_norm_parts is {self.parts}; "
                "allowed: no more parts than images: use larger batches or fewer parts"
            )
        first, *others = inputs.chunk(self.parts)
        normalized = [super().forward(first)]
        for part in others:
            normalized.append(
                F.batch_norm(part, None, None, self.weight, self.bias, training=True, eps=self.eps)
            )
        return torch.cat(normalized)


def _head(in_channels: int, num_classes: int, config: DeepLabV2Config) -> nn.Module:
    if config.head == "sum":
        return SumHead(
            in_channels, num_classes, rates=config.aspp_rates, summed=config.aspp_branches
        )
    width = config.backbone_width  # branches of 256 channels and 512 in the bottleneck at 64
    return SqueezeExcitationHead(
        in_channels,
        num_classes,
        rates=config.aspp_rates,
        branch=4 * width,
        hidden=8 * width,
        dropout=config.dropout,
        norm=nn.BatchNorm2d if config.head == "se_batch_norm" else partial(group_norm, width=width),
    )


def _check(config: DeepLabV2Config) -> None:
    for name, allowed in (
        ("levels", (1, 2)),
        ("head", get_args(HeadKind)),
        ("aspp_branches", (2, 4)),
    ):
        value = getattr(config, name)
        listed = ", ".join(str(choice) for choice in allowed)
        require(value in allowed, f"model.{name} is {value!r}; allowed: {listed}")
    rates, parts = config.aspp_rates, config.batch_norm_parts
    require(
        len(rates) == 4 and min(rates) >= 1,
        f"model.aspp_rates is {rates}; allowed: four dilations of 1 or more",
    )
    if config.head == "sum":
        require(
            config.dropout == 0,
            f"model.dropout is {config.dropout}, but model.head=sum has no dropout; allowed: 0: "
            "use --set model.dropout=0",
        )
        used = config.aspp_branches
        require(
            rates[used:] == _RATES[used:],
            f"model.aspp_rates is {rates}, but only {used} branches are summed: keep the "
            f"default {_RATES[used:]} for the others",
        )
    else:
        require(
            config.aspp_branches == 4,
            f"model.aspp_branches is {config.aspp_branches}, but model.head={config.head} joins "
            "all of them; allowed: 4: use --set model.aspp_branches=4 or model.head=sum",
        )
    require(parts >= 1, f"model.batch_norm_parts is {parts}; allowed: 1 or more")
    require(
        parts == 1 or config.batch_norm != "frozen",
        f"model.batch_norm_parts is {parts}, but model.batch_norm=frozen uses no batch's "
        "statistics; allowed: 1 part, or --set model.batch_norm=frozen_affine",
    )
