"""Files of torchvision's segmentation networks."""

from dataclasses import replace

from uda.checkpoints.formats.base import ENCODER, IMAGENET_QUIRKS, Entries, ForeignFormat, resnet_of
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
    protocol="native",
    quirks=f"output stride 8; corners not aligned; {IMAGENET_QUIRKS}",
)
TORCHVISION_MAIN = replace(
    TORCHVISION,
    name=f"torchvision DeepLabV3 {ENCODER} without auxiliary head",
    network=lambda entries: replace(_network(entries), auxiliary_head=False),
    prefixes={"backbone.": "backbone.", "classifier.": "main."},
)
