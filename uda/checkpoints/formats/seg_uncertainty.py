"""Files of Seg-Uncertainty (MRNet)."""

from uda.checkpoints.formats.base import CAFFE_QUIRKS, Entries, ForeignFormat
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.base import CAFFE


def _network(entries: Entries) -> DeepLabV2Config:
    return DeepLabV2Config(backbone_weights="none", batch_norm="frozen_affine")


SEG_UNCERTAINTY = ForeignFormat(
    name="Seg-Uncertainty two-level DeepLab-v2",
    project="seg_uncertainty",
    network=_network,
    prefixes={"": "backbone.", "layer5.": "auxiliary.", "layer6.": "main."},
    marks=("layer6.head.", "layer5.head."),
    classifier="layer6.head.1.weight",
    normalization=CAFFE,
    protocol="mrnet",
    quirks=f"main head reads layer3 and layer4; {CAFFE_QUIRKS}",
)
