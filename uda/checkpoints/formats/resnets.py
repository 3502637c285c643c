"""ResNets of torchvision or Caffe without heads, as initial weights."""

from typing import get_args

import torch
from torch import nn

from uda.checkpoints.formats.base import BackboneFile, Entries
from uda.checkpoints.matching import rows
from uda.models.encoders.resnet import BackboneName, CaffeResNetBackbone, ResNetBackbone
from uda.utilities.weight_files import compare


def _use(entries: Entries) -> str | None:
    backbone = {n: v for n, v in entries.items() if not n.startswith(CaffeResNetBackbone.heads)}
    width = rows(backbone.get("conv1.weight"))
    for name in get_args(BackboneName) if width else ():
        with torch.device("meta"):
            network: nn.Module = ResNetBackbone(name, width=width, output_stride=16)
        found = compare(backbone, {n: t.shape for n, t in network.state_dict().items()})
        if found.complete and not found.unexpected:
            return (
                f"the backbone of a {name} of width {width}, which can be used as initial weights: "
                "--set model.backbone_weights={file}"
            )
    return None


RESNETS = BackboneFile(use=_use)
