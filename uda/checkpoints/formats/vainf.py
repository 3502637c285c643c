"""Files of VainF's DeepLabV3Plus-Pytorch."""

from uda.checkpoints.formats.base import ENCODER, IMAGENET_QUIRKS, Entries, ForeignFormat, resnet_of
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
    protocol="native",
    quirks=f"corners not aligned; {IMAGENET_QUIRKS}",
    stride_in_name=r"(?<![a-z0-9])os(8|16)(?!\d)",
)
