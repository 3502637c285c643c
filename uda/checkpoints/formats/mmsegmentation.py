"""DeepLabV3+ files of mmsegmentation, whose DeepLabs are on ResNetV1c at stride 8."""

from collections.abc import Mapping

import torch

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
from uda.models.decoders.deeplabv3plus import DeepLabV3PlusDecoderConfig
from uda.models.decoders.fcn import FcnConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.models.encoders.resnet_v1c import SUFFIX, build
from uda.utilities.weight_files import compare, is_array

_HEAD, _OURS = "decode_head.", "decoder."
_AUXILIARY = "auxiliary_head."
_BRANCHES = 5  # of the pyramid


def _network(entries: Entries) -> EncoderDecoderConfig:
    has_auxiliary = not entries or any(name.startswith(_AUXILIARY) for name in entries)
    return EncoderDecoderConfig(
        encoder=EncoderConfig(
            name=resnet_of(entries, "backbone.") + SUFFIX, weights="none", output_stride=8
        ),
        decoder=DeepLabV3PlusDecoderConfig(
            pyramid_channels=512, channels=512, norm="batch", separable=True, projection=3
        ),
        auxiliary=FcnConfig(channels=256, norm="batch") if has_auxiliary else None,
    )


def _pooled_last(entries: Entries) -> Entries:
    """With the bottleneck's input channels in our order: the pooled image is its last branch."""
    name = f"{_HEAD}bottleneck.conv.weight"
    weight = entries.get(name)
    if not is_array(weight, 4) or weight.shape[1] % _BRANCHES:
        return entries
    pooled, *others = weight.chunk(_BRANCHES, dim=1)
    return {**entries, name: torch.cat([*others, pooled], dim=1)}


def _with_norm(theirs: str, ours: str) -> Mapping[str, str]:
    """The names of a convolution and its norm."""
    return {f"{theirs}.conv.": f"{ours}.0.", f"{theirs}.bn.": f"{ours}.1."}


def _separable(theirs: str, ours: str) -> Mapping[str, str]:
    return {
        f"{theirs}.depthwise_conv.conv.": f"{ours}.0.",
        f"{theirs}.depthwise_conv.bn.": f"{ours}.1.",
        f"{theirs}.pointwise_conv.conv.": f"{ours}.3.",
        f"{theirs}.pointwise_conv.bn.": f"{ours}.4.",
    }


DEEPLABV3PLUS = ForeignFormat(
    name=f"mmsegmentation DeepLabV3+ {ENCODER}",
    project="mmsegmentation",
    network=_network,
    prefixes={
        "backbone.": "backbone.",
        **_with_norm(f"{_HEAD}image_pool.1", f"{_OURS}aspp.pooled"),
        **_with_norm(f"{_HEAD}aspp_modules.0", f"{_OURS}aspp.branches.0"),
        **_separable(f"{_HEAD}aspp_modules.1", f"{_OURS}aspp.branches.1"),
        **_separable(f"{_HEAD}aspp_modules.2", f"{_OURS}aspp.branches.2"),
        **_separable(f"{_HEAD}aspp_modules.3", f"{_OURS}aspp.branches.3"),
        **_with_norm(f"{_HEAD}bottleneck", f"{_OURS}aspp.project.0"),
        **_with_norm(f"{_HEAD}c1_bottleneck", f"{_OURS}low_level"),
        **_separable(f"{_HEAD}sep_bottleneck.0", f"{_OURS}decoder.0"),
        **_separable(f"{_HEAD}sep_bottleneck.1", f"{_OURS}decoder.1"),
        f"{_HEAD}conv_seg.": f"{_OURS}decoder.2.",
        **_with_norm(f"{_AUXILIARY}convs.0", "auxiliary.0"),
        f"{_AUXILIARY}conv_seg.": "auxiliary.2.",
    },
    convert=_pooled_last,
    marks=(f"{_HEAD}sep_bottleneck.", f"{_HEAD}image_pool."),
    classifier=f"{_HEAD}conv_seg.weight",
    normalization=IMAGENET,
    label_spaces=(CITYSCAPES, VOC),
    protocol="native",
    quirks=f"corners not aligned; {IMAGENET_QUIRKS}",
    stride_in_name=r"(?<![a-z0-9])d(8|16)(?!\d)",
)


def _use(entries: Entries) -> str | None:
    if "stem.0.weight" not in entries:
        return None
    name = resnet_of(entries) + SUFFIX
    with torch.device("meta"):
        encoder = build(EncoderConfig(name=name, weights="none"))
    found = compare(encoder.entries(entries), {n: t.shape for n, t in encoder.state_dict().items()})
    if not found.complete or found.unexpected:
        return None
    return (
        f"the backbone of a {name}, which can be used as initial weights: --set "
        f"model.encoder.name={name} --set model.encoder.weights={{file}}"
    )


RESNET_V1C = BackboneFile(use=_use)
