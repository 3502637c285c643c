"""Files of Seg-Uncertainty (MRNet)."""

from dataclasses import replace

from uda.checkpoints.formats.base import CAFFE_QUIRKS, Entries, ForeignFormat
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.base import CAFFE


def _network(entries: Entries) -> DeepLabV2Config:
    config = DeepLabV2Config(backbone_weights="none", batch_norm="frozen_affine")
    by_batch = any(name.endswith("conv2d_list.0.1.running_mean") for name in entries)
    return replace(config, head="se_batch_norm") if by_batch else config


def _main_only(entries: Entries) -> DeepLabV2Config:
    return replace(_network(entries), levels=1)


SEG_UNCERTAINTY = ForeignFormat(
    name="Seg-Uncertainty two-level DeepLab-v2",
    project="seg_uncertainty",
    network=_network,
    prefixes={"": "backbone.", "layer5.": "auxiliary.", "layer6.": "main."},
    marks=("layer6.head.", "layer6.conv2d_list.0.0.", "layer5.head."),
    unused=("fc.",),  # ImageNet's classifier
    classifier="layer6.head.1.weight",
    normalization=CAFFE,
    protocol="mrnet",
    quirks=f"main head reads layer3 and layer4; {CAFFE_QUIRKS}; heads without running statistics "
    "are normalized by group: files made with norm_style=in look the same and are not told apart",
)
SEG_UNCERTAINTY_MAIN = replace(
    SEG_UNCERTAINTY,
    name="Seg-Uncertainty two-level DeepLab-v2 without auxiliary head",
    network=_main_only,
    prefixes={"": "backbone.", "layer6.": "main."},
    protocol="single",
)
