"""Files of AdaptSegNet, and of projects that took its network, such as DACS."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from uda.checkpoints.formats.base import CAFFE_QUIRKS, Entries, ForeignFormat
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.base import CAFFE

_LOOKALIKES = (
    "files of projects that sum all 4, such as ADVENT, look the same and are not told apart"
)


def _sum_heads(levels: Literal[1, 2]) -> Callable[[Entries], DeepLabV2Config]:
    return lambda entries: DeepLabV2Config(
        backbone_weights="none",
        batch_norm="frozen_affine",
        levels=levels,
        head="sum",
        aspp_branches=2,
        dropout=0.0,
    )


ADAPTSEGNET = ForeignFormat(
    name="AdaptSegNet two-level DeepLab-v2",
    project="adaptsegnet",
    network=_sum_heads(2),
    prefixes={"": "backbone.", "layer5.": "auxiliary.", "layer6.": "main."},
    marks=("layer5.conv2d_list.0.weight", "layer6.conv2d_list.0.weight"),
    classifier="layer6.conv2d_list.0.weight",
    normalization=CAFFE,
    protocol="adaptsegnet",
    quirks=f"2 of 4 ASPP branches summed; {CAFFE_QUIRKS}; {_LOOKALIKES}",
)
ADAPTSEGNET_SINGLE = replace(
    ADAPTSEGNET,
    name="AdaptSegNet single-level DeepLab-v2",
    network=_sum_heads(1),
    prefixes={"": "backbone.", "layer5.": "main."},
    classifier="layer5.conv2d_list.0.weight",
)
