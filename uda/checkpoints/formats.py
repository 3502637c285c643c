"""The formats of files of other projects, each with our network for it; foreign.py reads them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

from uda.labels.spaces import CITYSCAPES, LabelSpace
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.base import CAFFE, IMAGENET, Normalization
from uda.models.encoders.resnet import ResNetConfig
from uda.models.segmentron import SegmenTronConfig
from uda.models.torchvision_deeplabv3 import TorchvisionDeepLabV3Config
from uda.models.vainf import VainFConfig

_NOT_IN_THE_FILE = "unknown (a file of another project does not say)"
_CAFFE_QUIRKS = "corners aligned; BGR input minus Caffe's mean; ceil-mode pooling"
_IMAGENET_QUIRKS = "RGB input by ImageNet's mean and deviation; floor-mode pooling"
_LOOKALIKES = (
    "files of projects that sum all 4, such as ADVENT, look the same and are not told apart"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ForeignFormat:
    """How a project names the parts of one of our networks."""

    name: str  # in words
    network: Callable[[], ResNetConfig]  # without weights of its own
    prefixes: Mapping[str, str]  # of their names to those of ours; the longest that fits counts
    unused: frozenset[str]  # their entries that the network never reads
    classifier: str  # their tensor with as many rows as there are classes
    normalization: Normalization  # of the network
    label_space: LabelSpace = CITYSCAPES  # as many classes of another label space are others
    supervision: str  # what target labels it was trained with
    protocol: str  # that its authors evaluate it by; a name in uda/evaluation/protocols.py
    quirks: str  # what the network does that no tensor shows, in words

    def own_name(self, name: str) -> str | None:
        """Our name of their entry; none when no prefix fits."""
        return _exchange(name, self.prefixes)

    def their_name(self, own: str) -> str | None:
        """Their name of our entry; none for what their files do not hold."""
        return _exchange(own, {ours: theirs for theirs, ours in self.prefixes.items()})

    @property
    def backbone_is_bare(self) -> bool:
        """Whether the backbone has torchvision's names, so that a file can be used as initial
        weights."""
        return "" in self.prefixes


def _exchange(name: str, prefixes: Mapping[str, str]) -> str | None:
    fitting = [prefix for prefix in prefixes if name.startswith(prefix)]
    if not fitting:
        return None
    longest = max(fitting, key=len)
    return prefixes[longest] + name.removeprefix(longest)


def _segmentron() -> ResNetConfig:
    return SegmenTronConfig(backbone="resnet101", backbone_weights="none", backbone_width=64)


SEGMENTRON = ForeignFormat(
    name="SegmenTron DeepLabV3+ ResNet-101",
    network=_segmentron,
    prefixes={
        "encoder.": "backbone.",
        "head.aspp.image_pooling.": "aspp.pooled.",
        "head.aspp.aspp0.": "aspp.branches.0.",
        "head.aspp.aspp1.block.": "aspp.branches.1.",
        "head.aspp.aspp2.block.": "aspp.branches.2.",
        "head.aspp.aspp3.block.": "aspp.branches.3.",
        "head.aspp.": "aspp.project.",
        "head.c1_block.": "low_level.",
        "head.block.0.block.": "decoder.0.",
        "head.block.1.block.": "decoder.1.",
        "head.block.2.": "decoder.2.",
    },
    unused=frozenset({"encoder.fc.weight", "encoder.fc.bias"}),  # ImageNet's classifier
    classifier="head.block.2.weight",
    normalization=IMAGENET,
    # Of deeplabv3_plus_resnet101_segmentron.pth; another file of the format looks the same.
    supervision="ground truth (2975 images)",
    protocol="segmentron",
    quirks=f"output stride 16; corners aligned; {_IMAGENET_QUIRKS}",
)


def _sum_heads(levels: Literal[1, 2]) -> Callable[[], ResNetConfig]:
    return partial(
        DeepLabV2Config,
        backbone_weights="none",
        batch_norm="frozen_affine",
        levels=levels,
        head="sum",
        aspp_branches=2,
        dropout=0.0,
    )


_ADAPTSEGNET = ForeignFormat(
    name="AdaptSegNet two-level DeepLab-v2",
    network=_sum_heads(2),
    prefixes={"": "backbone.", "layer5.": "auxiliary.", "layer6.": "main."},
    unused=frozenset(),
    classifier="layer6.conv2d_list.0.weight",
    normalization=CAFFE,
    supervision=_NOT_IN_THE_FILE,
    protocol="adaptsegnet",
    quirks=f"2 of 4 ASPP branches summed; {_CAFFE_QUIRKS}; {_LOOKALIKES}",
)
_ADAPTSEGNET_SINGLE = replace(
    _ADAPTSEGNET,
    name="AdaptSegNet single-level DeepLab-v2",
    network=_sum_heads(1),
    prefixes={"": "backbone.", "layer5.": "main."},
    classifier="layer5.conv2d_list.0.weight",
)
_SEG_UNCERTAINTY = replace(
    _ADAPTSEGNET,
    name="Seg-Uncertainty two-level DeepLab-v2",
    network=partial(DeepLabV2Config, backbone_weights="none", batch_norm="frozen_affine"),
    classifier="layer6.head.1.weight",
    protocol="mrnet",
    quirks=f"main head reads layer3 and layer4; {_CAFFE_QUIRKS}",
)

_VAINF = ForeignFormat(
    name="VainF DeepLabV3+ ResNet-101",
    network=partial(VainFConfig, backbone_weights="none"),
    prefixes={
        "backbone.": "backbone.",
        "classifier.aspp.": "aspp.",
        "classifier.project.": "low_level.",
        "classifier.classifier.": "decoder.",
    },
    unused=frozenset(),
    classifier="classifier.classifier.3.weight",
    normalization=IMAGENET,
    supervision=_NOT_IN_THE_FILE,
    protocol="native",
    quirks=f"output stride 16; corners not aligned; {_IMAGENET_QUIRKS}",
)
_TORCHVISION = replace(
    _VAINF,
    name="torchvision DeepLabV3 ResNet-101",
    network=partial(TorchvisionDeepLabV3Config, backbone_weights="none"),
    prefixes={"backbone.": "backbone.", "classifier.": "main.", "aux_classifier.": "auxiliary."},
    classifier="classifier.4.weight",
    quirks=f"output stride 8; corners not aligned; {_IMAGENET_QUIRKS}",
)
_TORCHVISION_MAIN = replace(
    _TORCHVISION,
    name="torchvision DeepLabV3 ResNet-101 without auxiliary head",
    network=partial(TorchvisionDeepLabV3Config, backbone_weights="none", auxiliary_head=False),
    prefixes={"backbone.": "backbone.", "classifier.": "main."},
)

FORMATS = (
    SEGMENTRON, _ADAPTSEGNET, _ADAPTSEGNET_SINGLE, _SEG_UNCERTAINTY, _VAINF, _TORCHVISION,
    _TORCHVISION_MAIN,
)  # fmt: skip
