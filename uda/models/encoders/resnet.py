"""ResNets with torchvision's weights at output stride 8, 16 or 32, or Caffe's at 8.

Source: He et al., CVPR 2016, arXiv 1512.03385; blocks and parameter names are torchvision's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, NamedTuple, cast

from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from uda.models.config import BackboneModelConfig
from uda.models.encoders.base import (
    CAFFE,
    IMAGENET_WIDTH,
    BackboneConfig,
    Encoder,
    EncoderConfig,
    EncoderFamily,
    FeatureMaps,
)
from uda.models.encoders.weights import load_file, load_imagenet
from uda.utilities.errors import InputError, require
from uda.utilities.weight_files import PREFIXES

BackboneName = Literal["resnet18", "resnet34", "resnet50", "resnet101"]
_INNER = "backbone."  # of torchvision's segmentation networks
NormLayer = Callable[[int], nn.BatchNorm2d]  # from a number of channels


@dataclass(kw_only=True, slots=True)
class ResNetConfig(BackboneModelConfig):
    """Settings of a network on one of these ResNets."""

    backbone: BackboneName = "resnet101"
    backbone_width: int = IMAGENET_WIDTH  # channels of the stem; the other layers scale with it

    def build_backbone(self, output_stride: Literal[8, 16, 32]) -> "ResNetBackbone":
        """The ResNet of these settings; raises InputError as `resnet_backbone` does."""
        return resnet_backbone(
            self.backbone,
            width=self.backbone_width,
            output_stride=output_stride,
            weights=self.backbone_weights,
        )

    def check_quarters(self, network: str) -> None:
        """Raises InputError when 3/4 of the width, which a head has, is not whole."""
        require(
            self.backbone_width % 4 == 0,
            f"model.backbone_width is {self.backbone_width}; allowed: multiples of 4, because a "
            f"head of {network} is 3/4 as wide",
        )


def check_stride(output_stride: int) -> None:
    """Raises InputError for an output stride that DeepLabV3+ is not built at."""
    require(output_stride in (8, 16), f"model.output_stride is {output_stride!r}; allowed: 8, 16")


class _Depth(NamedTuple):
    block: type[BasicBlock] | type[Bottleneck]
    blocks: tuple[int, int, int, int]  # per stage


_DEPTHS = {
    "resnet18": _Depth(BasicBlock, (2, 2, 2, 2)),
    "resnet34": _Depth(BasicBlock, (3, 4, 6, 3)),
    "resnet50": _Depth(Bottleneck, (3, 4, 6, 3)),
    "resnet101": _Depth(Bottleneck, (3, 4, 23, 3)),
}


class ResNetBackbone(Encoder):
    """A ResNet without its classifier; parameters are named as in torchvision's ResNets."""

    file_kind: ClassVar[str] = "torchvision classification state dict"
    prefixes: ClassVar[tuple[str, ...]] = ("module.",)
    heads: ClassVar[tuple[str, ...]] = ("fc.",)  # names left out

    def __init__(
        self,
        name: BackboneName,
        *,
        width: int,
        output_stride: Literal[8, 16, 32],
        norm: NormLayer = nn.BatchNorm2d,
    ) -> None:
        """Random weights; use `resnet_backbone`, which loads weights and checks the stride.

        Raises InputError on an unknown name or width.
        """
        super().__init__()
        if name not in _DEPTHS:
            raise InputError(f"model.backbone is {name!r}; allowed: {', '.join(_DEPTHS)}")
        if width < 1:
            raise InputError(f"model.backbone_width is {width!r}; allowed: 1 or more, default: 64")
        depth = _DEPTHS[name]
        self.conv1 = nn.Conv2d(3, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = norm(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        channels = [width] + [width * factor * depth.block.expansion for factor in (1, 2, 4, 8)]
        stage = partial(_stage, depth.block, norm=norm)
        self.layer1 = stage(channels[0], width, count=depth.blocks[0], stride=1)
        self.layer2 = stage(channels[1], 2 * width, count=depth.blocks[1], stride=2)
        self.layer3 = stage(channels[2], 4 * width, count=depth.blocks[2], stride=2)
        self.layer4 = stage(channels[3], 8 * width, count=depth.blocks[3], stride=2)
        if output_stride == 8:
            _replace_stride_with_dilation(self.layer3, previous_dilation=1)
            _replace_stride_with_dilation(self.layer4, previous_dilation=2)
        elif output_stride == 16:
            _replace_stride_with_dilation(self.layer4, previous_dilation=1)
        self.channels = tuple(channels[1:])
        self.strides = tuple(min(stride, output_stride) for stride in (4, 8, 16, 32))
        self.title = f"{name} of width {width}"
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> FeatureMaps:
        """Maps of layer1 to layer4. Sizes are rounded up; a max-pool with `ceil_mode` adds 1 to
        even ones.

        images: (N, 3, H, W) float, normalized
        """
        first = self.run(self.layer1, self.maxpool(self.after_stem(images)))
        second = self.run(self.layer2, first)
        third = self.run(self.layer3, second)
        return first, second, third, self.run(self.layer4, third)

    def after_stem(self, images: Tensor) -> Tensor:
        """What is pooled before the first stage."""
        return self.relu(self.bn1(self.conv1(images)))

    def stem_parameters(self) -> list[nn.Parameter]:
        """Those before the first stage."""
        return [*self.conv1.parameters(), *self.bn1.parameters()]

    def layers(self) -> list[list[nn.Parameter]]:
        """Those of the stem, then of each block."""
        stem = self.stem_parameters()
        stages = (self.layer1, self.layer2, self.layer3, self.layer4)
        return [stem, *(list(block.parameters()) for stage in stages for block in stage)]

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """All but the classifier and the heads; of torchvision's segmentation networks, what is in
        `backbone`."""
        if any(name.startswith(_INNER) for name in state):
            state = {n.removeprefix(_INNER): v for n, v in state.items() if n.startswith(_INNER)}
        return {name: value for name, value in state.items() if not name.startswith(self.heads)}


class CaffeResNetBackbone(ResNetBackbone):
    """The ResNet that DeepLab-v2 took from Caffe, at output stride 8, under torchvision's names.

    The first convolution of a block has the stride (torchvision's bottleneck has it in the second);
    every block of layer3 has dilation 2 and of layer4 dilation 4, including the first.

    Source: Chen et al., TPAMI 2018, arXiv 1606.00915; as in wasidennis/AdaptSegNet@fca9ff0.
    """

    file_kind = "Caffe ResNet's or DeepLab-v2's state dict under torchvision's names"
    prefixes = PREFIXES
    normalization = CAFFE
    heads = ("fc.", "layer5.", "layer6.")

    def __init__(self, name: BackboneName, *, width: int, ceil_mode: bool, norm: NormLayer) -> None:
        """Random weights; use `caffe_resnet_backbone`."""
        super().__init__(name, width=width, output_stride=8, norm=norm)
        self.maxpool.ceil_mode = ceil_mode
        block = self.layer2[0]
        assert isinstance(block, BasicBlock | Bottleneck)
        block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
        for stage, dilation in ((self.layer3, 2), (self.layer4, 4)):
            for layer in stage.modules():
                if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3):
                    layer.dilation = layer.padding = (dilation, dilation)


def resnet_backbone(
    name: BackboneName,
    *,
    width: int = IMAGENET_WIDTH,
    output_stride: Literal[8, 16, 32] = 16,
    weights: str,
) -> ResNetBackbone:
    """The same as `build`, for flat settings."""
    return build(
        BackboneConfig(name=name, width=width, output_stride=output_stride, weights=weights)
    )


def build(config: EncoderConfig) -> ResNetBackbone:
    """A ResNet whose `provenance` says which weights it has.

    `config.width` is the stem's number of channels; every other layer scales with it.
    `config.weights` is "none" (random), "imagenet" (torchvision's IMAGENET1K_V1, downloaded once)
    or the path of a torchvision classification state dict, whose classifier is ignored.

    Raises InputError on an unknown name, stride or width, and when the weights cannot be had or
    belong to another network.
    """
    config.refuse("drop_path", "patch_norm_eps")
    stride, width = config.output_stride or 16, config.width
    require(width >= 1, f"{config.option('width')} is {width}; allowed: 1 or more, default: 64")
    if stride not in (8, 16, 32):
        raise InputError(f"{config.option('output_stride')} is {stride!r}; allowed: 8, 16, 32")
    if config.weights == "imagenet" and width != IMAGENET_WIDTH:
        raise InputError(
            f"{config.option('width')} is {width}, but ImageNet weights exist for {IMAGENET_WIDTH} "
            f"only: use --set {config.option('weights')}=none or that width"
        )
    backbone = ResNetBackbone(
        cast(BackboneName, config.name),
        width=width,
        output_stride=cast(Literal[8, 16, 32], stride),
    )
    if config.weights == "imagenet":
        load_imagenet(backbone, config)
    elif config.weights != "none":
        load_file(backbone, config, allowed="none, imagenet")
    return backbone


RESNETS = EncoderFamily(names=", ".join(_DEPTHS), includes=_DEPTHS.__contains__, build=build)


def caffe_resnet_backbone(
    name: BackboneName,
    *,
    width: int = IMAGENET_WIDTH,
    weights: str,
    ceil_mode: bool = True,
    norm: NormLayer = nn.BatchNorm2d,
) -> CaffeResNetBackbone:
    """A Caffe-style ResNet whose `provenance` says which weights it has.

    `width` is as in `resnet_backbone`. `weights` is "none" (random) or the path of a state dict;
    its names may begin with "module." and "Scale.", and its heads are ignored. It should come from
    Caffe too: torchvision's files have the same names and would load, but were trained with other
    strides and another normalization. `ceil_mode` is that of the max-pool, `norm`
    makes every normalization layer.

    Raises InputError on an unknown name or width, on "imagenet", and when the weights cannot be had
    or are those of another network.
    """
    if weights == "imagenet":
        raise InputError(
            "model.backbone_weights is 'imagenet', but torchvision's weights are for other strides "
            "and for RGB; allowed: none, or the path of a Caffe ResNet's file, such as "
            "AdaptSegNet's DeepLab_resnet_pretrained_init-f81d91e8.pth"
        )
    backbone = CaffeResNetBackbone(name, width=width, ceil_mode=ceil_mode, norm=norm)
    if weights != "none":
        load_file(backbone, BackboneConfig(name=name, weights=weights), allowed="none")
    return backbone


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    planes: int,
    *,
    count: int,
    stride: int,
    norm: NormLayer,
) -> nn.Sequential:
    out_channels = planes * block.expansion
    shortcut = None
    if stride != 1 or in_channels != out_channels:
        shortcut = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
            norm(out_channels),
        )
    first = block(in_channels, planes, stride, shortcut, norm_layer=norm)
    others = (block(out_channels, planes, norm_layer=norm) for _ in range(1, count))
    return nn.Sequential(first, *others)


def _replace_stride_with_dilation(stage: nn.Sequential, *, previous_dilation: int) -> None:
    """Makes `stage` keep its input's size; at every second pixel it computes what it did before.

    The convolution that had the stride still reads the previous stage's grid, so it keeps that
    stage's dilation; the grid of those after it is now twice as fine as it was. torchvision
    does the same for Bottleneck blocks and refuses BasicBlock.
    """
    for layer in stage.modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        dilation = previous_dilation if layer.stride != (1, 1) else 2 * previous_dilation
        layer.stride = (1, 1)
        if layer.kernel_size == (3, 3):
            layer.dilation = layer.padding = (dilation, dilation)
