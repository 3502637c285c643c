"""DeepLab-v2 files of DAFormer, HRDA and MIC: mmsegmentation's ResNetV1c with summed branches."""

from uda.checkpoints.formats.base import (
    ENCODER,
    IMAGENET_QUIRKS,
    Entries,
    ForeignFormat,
    resnet_of,
)
from uda.checkpoints.formats.daformer import IN_TRAINING
from uda.models.decoders.deeplabv2 import DeepLabV2DecoderConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.models.encoders.resnet_v1c import SUFFIX

_BRANCH = "decode_head.aspp_modules.{}.conv.weight"


def _network(entries: Entries) -> EncoderDecoderConfig:
    rates = (6, 12, 18, 24) if _BRANCH.format(3) in entries else (6, 12)
    return EncoderDecoderConfig(
        encoder=EncoderConfig(
            name=resnet_of(entries, "backbone.") + SUFFIX, weights="none", output_stride=8
        ),
        decoder=DeepLabV2DecoderConfig(rates=rates),
        dropout=0.0,
    )


DEEPLABV2 = ForeignFormat(
    name=f"DAFormer DeepLab-v2 {ENCODER}",
    project="daformer",
    network=_network,
    prefixes={
        "backbone.": "backbone.",
        **{f"decode_head.aspp_modules.{i}.conv.": f"decoder.branches.{i}." for i in range(4)},
    },
    networks=IN_TRAINING,
    marks=(_BRANCH.format(0),),
    classifier=_BRANCH.format(0),
    normalization=IMAGENET,
    protocol="daformer",
    quirks=f"corners not aligned; {IMAGENET_QUIRKS}",
)
