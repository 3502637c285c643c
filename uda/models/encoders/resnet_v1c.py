"""ResNets whose stem is three 3x3 convolutions, as mmsegmentation's ResNetV1c.

Source: He et al., CVPR 2019, arXiv 1812.01187, figure 2b (ResNet-C); written from the parameter
names, the structure and the measured logits of github.com/open-mmlab/mmsegmentation.
"""

from collections.abc import Mapping
from typing import Literal, cast

from torch import Tensor, nn

from uda.models.encoders.base import Encoder, EncoderConfig, EncoderFamily
from uda.models.encoders.resnet import BackboneName, ResNetBackbone
from uda.models.encoders.weights import load_file
from uda.utilities.errors import InputError, require

SUFFIX = "_v1c"
_DEPTHS = {f"{name}{SUFFIX}": name for name in ("resnet18", "resnet50", "resnet101")}


class ResNetV1c(ResNetBackbone):
    """A ResNet with a deep stem; parameters are named as in mmsegmentation's files.

    Where stride is replaced by dilation, the first block of a stage keeps the dilation of the stage
    before it, as in torchvision and with mmsegmentation's `contract_dilation`.
    """

    file_kind = "ResNetV1c's state dict, of mmsegmentation"

    def __init__(
        self, name: BackboneName, *, width: int, output_stride: Literal[8, 16, 32]
    ) -> None:
        """Random weights; use `build`."""
        super().__init__(name, width=width, output_stride=output_stride)
        del self.conv1, self.bn1, self.relu
        self.title = f"{name}{SUFFIX} of width {width}"
        layers: list[nn.Module] = []
        for inputs, outputs, stride in (
            (3, width // 2, 2),
            (width // 2, width // 2, 1),
            (width // 2, width, 1),
        ):
            convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
            layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
        self.stem = nn.Sequential(*layers)

    def after_stem(self, images: Tensor) -> Tensor:
        return self.stem(images)

    def stem_parameters(self) -> list[nn.Parameter]:
        return list(self.stem.parameters())

    def entries(self, state: Mapping[str, object]) -> dict[str, object]:
        """All but heads; in the file of a whole network, what begins with "backbone."."""
        whole = {n: v for n, v in state.items() if n.startswith("backbone.")}
        bare = {n.removeprefix("backbone."): v for n, v in (whole or state).items()}
        return super().entries(bare)


def build(config: EncoderConfig) -> Encoder:
    """The ResNet `config.name`, with random weights or those of a file of mmsegmentation: of a
    classification network or of a whole segmentation network, whose heads are left out.

    Raises InputError on an unknown stride or an odd width, and when the weights cannot be had or
    belong to another network.
    """
    config.refuse("drop_path", "patch_norm_eps")
    require(
        config.weights != "imagenet",
        f"{config.option('weights')} is 'imagenet', but there is no download for {config.name}; "
        f"allowed: none, or the path of a {ResNetV1c.file_kind}, such as resnet50_v1c-2cccc1ad.pth",
    )
    if config.width < 2 or config.width % 2:
        raise InputError(
            f"{config.option('width')} is {config.width}; allowed: even numbers, because half of "
            "the stem is half as wide"
        )
    encoder = ResNetV1c(
        cast(BackboneName, _DEPTHS[config.name]),
        width=config.width,
        output_stride=cast(Literal[8, 16, 32], config.output_stride or 16),
    )
    if config.weights != "none":
        load_file(encoder, config, allowed="none")
    return encoder


RESNETS_V1C = EncoderFamily(names=", ".join(_DEPTHS), includes=_DEPTHS.__contains__, build=build)
