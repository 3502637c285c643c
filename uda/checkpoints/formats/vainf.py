"""Files of VainF's DeepLabV3Plus-Pytorch."""

from uda.checkpoints.formats.base import (
    ENCODER,
    IMAGENET_QUIRKS,
    BackboneFile,
    Entries,
    ForeignFormat,
    any_begins,
    resnet_of,
)
from uda.labels.spaces import CITYSCAPES
from uda.labels.voc import VOC
from uda.models.encoders.base import IMAGENET
from uda.models.vainf import VainFConfig


def _network(entries: Entries) -> VainFConfig:
    return VainFConfig(backbone=resnet_of(entries, "backbone."), backbone_weights="none")


VAINF = ForeignFormat(
    name=f"VainF DeepLabV3+ {ENCODER}",
    project="vainf",
    network=_network,
    prefixes={
        "backbone.": "backbone.",
        "classifier.aspp.": "aspp.",
        "classifier.project.": "low_level.",
        "classifier.classifier.": "decoder.",
    },
    classifier="classifier.classifier.3.weight",
    normalization=IMAGENET,
    label_spaces=(CITYSCAPES, VOC),
    protocol="native",
    quirks=f"corners not aligned; {IMAGENET_QUIRKS}",
    stride_in_name=r"(?<![a-z0-9])os(8|16)(?!\d)",
)


# How names of the backbones begin that are not built here.
_OTHERS = {
    "backbone.high_level_features.": "MobileNet-v2",
    "backbone.stage4.": "HRNet",
    "backbone.block20.": "Xception",
}


def _not_built(entries: Entries) -> str | None:
    if not any_begins(entries, ("classifier.classifier.",)):
        return None
    for beginning, backbone in _OTHERS.items():
        if any_begins(entries, (beginning,)):
            return (
                f"VainF's DeepLabV3+ on {backbone}, which this library does not build; its files "
                "on ResNets can be read"
            )
    return None


OTHER_BACKBONES = BackboneFile(use=_not_built, is_whole=True)
