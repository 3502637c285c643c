"""Files of VFM-UDA: student and teacher of a training, DINOv2 with its decoder."""

from uda.checkpoints.formats.base import ENCODER, Entries, ForeignFormat, Networks
from uda.models.decoders.vfm_uda import VfmUdaConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.models.encoders.vit import vit_in

_ENCODER = "encoder."


def _network(entries: Entries) -> EncoderDecoderConfig:
    vit = {n.removeprefix(_ENCODER): v for n, v in entries.items() if n.startswith(_ENCODER)}
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name=vit_in(vit) or "dinov2_vitb14", weights="none"),
        decoder=VfmUdaConfig(),
        input_scale=1.1,
        dropout=0.0,
    )


VFM_UDA = ForeignFormat(
    name=f"VFM-UDA on {ENCODER}",
    project="vfm-uda",
    network=_network,
    prefixes={_ENCODER: "backbone.", "upscale.": "decoder.upscale.", "out.": "decoder.out."},
    networks=Networks(student="network.", teacher="network_ema.", others={}),
    marks=("upscale.0.weight",),
    # The encoder's once more, under another name.
    unused=("token_masking.mask_token",),
    classifier="out.weight",
    normalization=IMAGENET,
    protocol="vfm_uda",
    quirks="images resized by 1.1, down to whole patches of 14 pixels; corners not aligned; RGB "
    "input by ImageNet's mean and deviation",
)
