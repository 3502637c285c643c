"""Files of ProDA."""

from uda.checkpoints.formats.base import Entries, ForeignFormat
from uda.models.proda import PLAIN, ProDAConfig

_INPUT_NORM = "bn_pretrain."  # in files of stages 2 and 3


def _network(entries: Entries) -> ProDAConfig:
    has_input_norm = not entries or any(name.startswith(_INPUT_NORM) for name in entries)
    return ProDAConfig(backbone_weights="none", input_norm=has_input_norm)


PRODA = ForeignFormat(
    name="ProDA DeepLab-v2",
    project="proda",
    network=_network,
    prefixes={"": "backbone.", "layer5.": "main.", _INPUT_NORM: "input_norm."},
    marks=("layer5.head.", "layer5.conv2d_list.0.0.", _INPUT_NORM),
    unused=("fc.",),  # ImageNet's classifier
    classifier="layer5.head.1.weight",
    normalization=PLAIN,
    protocol="native",
    quirks="RGB input in [0, 1] as it is; corners aligned; ceil-mode pooling",
)
