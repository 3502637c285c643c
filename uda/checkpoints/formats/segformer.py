"""Files of SegFormer, as its authors and as mmsegmentation write them."""

import re

import torch

from uda.checkpoints.formats.base import ENCODER, Entries, ForeignFormat
from uda.checkpoints.formats.mit import QUIRKS, mit_of
from uda.checkpoints.matching import rows
from uda.models.decoders.segformer import SegFormerConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.utilities.weight_files import is_array

_MAPS = 4


def _authors(entries: Entries) -> EncoderDecoderConfig:
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name=mit_of(entries, "backbone."), weights="none"),
        decoder=SegFormerConfig(
            channels=rows(entries.get("decode_head.linear_c1.proj.bias")) or 768
        ),
    )


def _finest_first(entries: Entries) -> Entries:
    """The fusion's weight for maps in our order: the authors concatenate the deepest first."""
    name = "decode_head.linear_fuse.conv.weight"
    weight = entries.get(name)
    if not is_array(weight, 4) or weight.shape[1] % _MAPS:
        return entries
    return {**entries, name: torch.cat(weight.chunk(_MAPS, dim=1)[::-1], dim=1)}


SEGFORMER = ForeignFormat(
    name=f"SegFormer on {ENCODER}",
    project="segformer",
    network=_authors,
    prefixes={
        "backbone.": "backbone.",
        **{
            f"decode_head.linear_c{level + 1}.proj.": f"decoder.embeddings.{level}."
            for level in range(_MAPS)
        },
        "decode_head.linear_fuse.conv.": "decoder.fusion.0.",
        "decode_head.linear_fuse.bn.": "decoder.fusion.1.",
        "decode_head.linear_pred.": "decoder.classifier.",
    },
    convert=_finest_first,
    marks=("decode_head.linear_c1.", "decode_head.linear_fuse.", "decode_head.linear_pred."),
    unused=("decode_head.conv_seg.",),
    classifier="decode_head.linear_pred.weight",
    normalization=IMAGENET,
    protocol="segformer",
    quirks=f"{QUIRKS}; epsilon 1e-6 and, in patch embeddings and reduced attention, 1e-5",
)

_LAYER = re.compile(r"backbone\.layers\.([0-3])\.(0|1\.\d{1,3}|2)\.(.+)")
_PARTS = {
    "projection.": "proj.",
    "attn.attn.out_proj.": "attn.proj.",
    "attn.attn.in_proj_": "attn.in.",
    "ffn.layers.0.": "mlp.fc1.",
    "ffn.layers.1.": "mlp.dwconv.dwconv.",
    "ffn.layers.4.": "mlp.fc2.",
}


def _mmsegmentation(entries: Entries) -> EncoderDecoderConfig:
    converted = _authors_names(entries)
    return EncoderDecoderConfig(
        encoder=EncoderConfig(
            name=mit_of(converted, "backbone."), weights="none", patch_norm_eps=1e-6
        ),
        decoder=SegFormerConfig(
            channels=rows(entries.get("decode_head.convs.0.conv.weight")) or 256,
            embedding="convolution",
        ),
    )


def _authors_names(entries: Entries) -> Entries:
    """The encoder's entries under the authors' names: queries apart from keys and values, 1x1
    convolutions as linear layers."""
    converted: dict[str, object] = {}
    for name, value in entries.items():
        own = _authors_name(name)
        if ".attn.in." in own and is_array(value) and len(value) % 3 == 0:
            queries = len(value) // 3
            converted[own.replace(".in.", ".q.")] = value[:queries]
            converted[own.replace(".in.", ".kv.")] = value[queries:]
            continue
        pointwise = own.endswith((".fc1.weight", ".fc2.weight"))
        if pointwise and is_array(value, 4) and value.shape[2:] == (1, 1):
            value = value[:, :, 0, 0]
        converted[own] = value
    return converted


def _authors_name(name: str) -> str:
    found = _LAYER.fullmatch(name)
    if found is None:
        return name
    stage, place, rest = int(found[1]) + 1, found[2], found[3]
    for theirs, own in _PARTS.items():
        if rest.startswith(theirs):
            rest = own + rest.removeprefix(theirs)
            break
    if place == "0":
        return f"backbone.patch_embed{stage}.{rest}"
    if place == "2":
        return f"backbone.norm{stage}.{rest}"
    return f"backbone.block{stage}.{place.removeprefix('1.')}.{rest}"


MMSEGMENTATION_SEGFORMER = ForeignFormat(
    name=f"mmsegmentation SegFormer on {ENCODER}",
    project="mmsegmentation",
    network=_mmsegmentation,
    prefixes={
        "backbone.": "backbone.",
        **{
            f"decode_head.convs.{level}.{theirs}": f"decoder.embeddings.{level}.{own}"
            for level in range(_MAPS)
            for theirs, own in {"conv.": "0.", "bn.": "1."}.items()
        },
        "decode_head.fusion_conv.conv.": "decoder.fusion.0.",
        "decode_head.fusion_conv.bn.": "decoder.fusion.1.",
        "decode_head.conv_seg.": "decoder.classifier.",
    },
    convert=_authors_names,
    marks=("decode_head.convs.", "decode_head.fusion_conv."),
    classifier="decode_head.conv_seg.weight",
    normalization=IMAGENET,
    protocol="segformer",
    quirks=f"{QUIRKS}; epsilon 1e-6",
)
