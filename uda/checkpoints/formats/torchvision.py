"""Files of torchvision's segmentation networks."""

from dataclasses import replace

from uda.checkpoints.formats.base import (
    ENCODER,
    IMAGENET_QUIRKS,
    BackboneFile,
    Entries,
    ForeignFormat,
    resnet_of,
)
from uda.labels.spaces import CITYSCAPES
from uda.labels.voc import VOC
from uda.models.encoders.base import IMAGENET
from uda.models.torchvision_deeplabv3 import TorchvisionDeepLabV3Config


def _network(entries: Entries) -> TorchvisionDeepLabV3Config:
    backbone = resnet_of(entries, "backbone.")
    return TorchvisionDeepLabV3Config(backbone=backbone, backbone_weights="none")


TORCHVISION = ForeignFormat(
    name=f"torchvision DeepLabV3 {ENCODER}",
    project="torchvision",
    network=_network,
    prefixes={"backbone.": "backbone.", "classifier.": "main.", "aux_classifier.": "auxiliary."},
    marks=("classifier.0.", "classifier.4.", "aux_classifier."),
    classifier="classifier.4.weight",
    normalization=IMAGENET,
    label_spaces=(CITYSCAPES, VOC),
    protocol="native",
    quirks=f"output stride 8; corners not aligned; {IMAGENET_QUIRKS}",
)
TORCHVISION_MAIN = replace(
    TORCHVISION,
    name=f"torchvision DeepLabV3 {ENCODER} without auxiliary head",
    network=lambda entries: replace(_network(entries), auxiliary_head=False),
    prefixes={"backbone.": "backbone.", "classifier.": "main."},
)


def _not_built(entries: Entries) -> str | None:
    network = ""
    if "classifier.4.weight" in entries and "classifier.0.convs.0.0.weight" not in entries:
        network = "FCN"
    elif "classifier.cbr.0.weight" in entries:
        network = "LR-ASPP on MobileNet-v3"
    elif "classifier.4.weight" in entries and "backbone.16.0.weight" in entries:
        network = "DeepLabV3 on MobileNet-v3"
    if not network:
        return None
    return (
        f"torchvision's {network}, which this library does not build; its DeepLabV3 files on "
        "ResNets can be read"
    )


OTHER_NETWORKS = BackboneFile(use=_not_built, is_whole=True)
