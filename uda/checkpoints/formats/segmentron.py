"""Files of SegmenTron."""

from uda.checkpoints.formats.base import ENCODER, IMAGENET_QUIRKS, Entries, ForeignFormat, resnet_of
from uda.models.encoders.base import IMAGENET
from uda.models.segmentron import SegmenTronConfig


def _network(entries: Entries) -> SegmenTronConfig:
    return SegmenTronConfig(
        backbone=resnet_of(entries, "encoder."), backbone_weights="none", backbone_width=64
    )


SEGMENTRON = ForeignFormat(
    name=f"SegmenTron DeepLabV3+ {ENCODER}",
    project="segmentron",
    network=_network,
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
    unused=("encoder.fc.", "auxlayer."),  # ImageNet's classifier; a head for training alone
    classifier="head.block.2.weight",
    normalization=IMAGENET,
    # Of deeplabv3_plus_resnet101_segmentron.pth; another file of the format looks the same.
    supervision="ground truth (2975 images)",
    protocol="segmentron",
    quirks=f"corners aligned; {IMAGENET_QUIRKS}",
)
