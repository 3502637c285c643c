"""Files of DAFormer, HRDA and MIC with a MiT: one network, or the student, the teacher and an
ImageNet copy of a training."""

from uda.checkpoints.formats.base import ENCODER, Entries, ForeignFormat, Networks
from uda.checkpoints.formats.mit import QUIRKS, mit_of
from uda.checkpoints.matching import rows
from uda.models.decoders.daformer import DAFormerConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.models.hrda import HrdaConfig

IN_TRAINING = Networks(
    student="model.",
    teacher="ema_model.",
    or_teacher="mic.teacher.ema_model.",
    others={
        "imnet_model.": "the copy with ImageNet weights",
        "mic.": "MIC's own teacher",
    },
)
_LINEAR = {f"embed_layers.{level}.proj.": f"embeddings.{level}." for level in range(4)}
_CONVOLUTION = {"conv.": "0.", "bn.": "1."}
_SEPARABLE = {
    f"{part}.{theirs}": own
    for part, names in {
        "depthwise_conv": {"conv.": "0.", "bn.": "1."},
        "pointwise_conv": {"conv.": "3.", "bn.": "4."},
    }.items()
    for theirs, own in names.items()
}
# Their names in the head and in the attention, and those of our decoder.
_HEAD = {
    **_LINEAR,
    **{
        f"fuse_layer.aspp_modules.{branch}.{theirs}": f"fusion.branches.{branch}.{own}"
        for branch in range(4)
        for theirs, own in (_SEPARABLE if branch else _CONVOLUTION).items()
    },
    **{f"fuse_layer.bottleneck.{t}": f"fusion.bottleneck.{own}" for t, own in _CONVOLUTION.items()},
    "conv_seg.": "classifier.",
}
_ATTENTION = {
    **_LINEAR,
    **{f"fuse_layer.{theirs}": f"fusion.{own}" for theirs, own in _CONVOLUTION.items()},
    "conv_seg.": "classifier.",
}


def _below(theirs: str, ours: str, names: dict[str, str]) -> dict[str, str]:
    return {f"{theirs}{name}": f"{ours}{own}" for name, own in names.items()}


def _width(entries: Entries, head: str) -> int:
    return rows(entries.get(f"{head}embed_layers.0.proj.bias")) or DAFormerConfig().channels


def _daformer(entries: Entries) -> EncoderDecoderConfig:
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name=mit_of(entries, "backbone."), weights="none"),
        decoder=DAFormerConfig(channels=_width(entries, "decode_head.")),
    )


def _hrda(entries: Entries) -> EncoderDecoderConfig:
    attention = _width(entries, "decode_head.scale_attention.")
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name=mit_of(entries, "backbone."), weights="none"),
        decoder=DAFormerConfig(channels=_width(entries, "decode_head.head.")),
        hrda=HrdaConfig(attention=DAFormerConfig(channels=attention, fusion="conv1")),
    )


DAFORMER = ForeignFormat(
    name=f"DAFormer on {ENCODER}",
    project="daformer",
    network=_daformer,
    prefixes={"backbone.": "backbone.", **_below("decode_head.", "decoder.", _HEAD)},
    networks=IN_TRAINING,
    marks=("decode_head.embed_layers.", "decode_head.fuse_layer."),
    classifier="decode_head.conv_seg.weight",
    normalization=IMAGENET,
    protocol="daformer",
    quirks=QUIRKS,
)
HRDA = ForeignFormat(
    name=f"HRDA or MIC (DAFormer on {ENCODER})",
    project="hrda",
    network=_hrda,
    prefixes={
        "backbone.": "backbone.",
        **_below("decode_head.head.", "decoder.", _HEAD),
        **_below("decode_head.scale_attention.", "hrda.attention.", _ATTENTION),
    },
    networks=IN_TRAINING,
    marks=("decode_head.head.", "decode_head.scale_attention."),
    classifier="decode_head.head.conv_seg.weight",
    normalization=IMAGENET,
    protocol="hrda",
    quirks=f"details of 512x512 pixels, half over each other; {QUIRKS}",
)
