"""SegFormer as transformers writes it."""

from collections.abc import Mapping
from typing import Any

import torch

from uda.checkpoints.formats.base import ENCODER, Entries, ForeignFormat
from uda.checkpoints.formats.mit import QUIRKS, mit_of
from uda.checkpoints.matching import rows
from uda.models.decoders.segformer import SegFormerConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import IMAGENET, EncoderConfig
from uda.models.encoders.mit import SIZES
from uda.models.encoders.mit_weights import from_transformers
from uda.utilities.weight_files import is_array

_MAPS = 4
_HEAD = "decode_head."
_FUSION = "decode_head.linear_fuse.weight"
# What config.json says of a network with our shapes that computes as ours.
_SETTINGS = {
    "num_attention_heads": [1, 2, 5, 8], "sr_ratios": [8, 4, 2, 1], "mlp_ratios": [4, 4, 4, 4],
    "patch_sizes": [7, 3, 3, 3], "strides": [4, 2, 2, 2], "hidden_act": "gelu",
    "reshape_last_stage": True,
}  # fmt: skip


def computes_as_ours(settings: Mapping[str, Any]) -> bool:
    """Whether the SegFormer of such a config.json is a MiT with SegFormer's head; another one keeps
    the shapes of its tensors, or has other depths and widths."""
    smallest = SIZES["mit_b0"]  # the library's default
    size = [settings.get("hidden_sizes", [*smallest.channels])]
    size += [settings.get("depths", [*smallest.depths])]
    return size in [[[*own.channels], [*own.depths]] for own in SIZES.values()] and all(
        settings.get(name, value) == value for name, value in _SETTINGS.items()
    )


def _converted(entries: Entries) -> Entries:
    """Names of the encoder as its authors', below "backbone."; the fusion's weight for maps in our
    order: transformers concatenates the deepest first."""
    encoder = {n: value for n, value in entries.items() if n.startswith("segformer.")}
    others = {n: value for n, value in entries.items() if n not in encoder}
    weight = others.get(_FUSION)
    if is_array(weight, 4) and weight.shape[1] % _MAPS == 0:
        others[_FUSION] = torch.cat(weight.chunk(_MAPS, dim=1)[::-1], dim=1)
    # Its newest versions call them so in memory.
    others = {n.replace("linear_projections.", "linear_c.", 1): v for n, v in others.items()}
    return {f"backbone.{n}": v for n, v in from_transformers(encoder).items()} | others


def _network(entries: Entries) -> EncoderDecoderConfig:
    converted = _converted(entries)
    channels = rows(converted.get("decode_head.linear_c.0.proj.bias")) or 768
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name=mit_of(converted, "backbone."), weights="none"),
        decoder=SegFormerConfig(channels=channels),
    )


TRANSFORMERS_SEGFORMER = ForeignFormat(
    name=f"transformers SegFormer on {ENCODER}",
    project="transformers",
    network=_network,
    prefixes={
        "backbone.": "backbone.",
        **{
            f"{_HEAD}linear_c.{level}.proj.": f"decoder.embeddings.{level}."
            for level in range(_MAPS)
        },
        f"{_HEAD}linear_fuse.": "decoder.fusion.0.",
        f"{_HEAD}batch_norm.": "decoder.fusion.1.",
        f"{_HEAD}classifier.": "decoder.classifier.",
    },
    convert=_converted,
    marks=("segformer.",),
    classifier=f"{_HEAD}classifier.weight",
    normalization=IMAGENET,
    protocol="segformer",
    quirks=f"{QUIRKS}; epsilons as in the authors' code, not 1e-5 everywhere as in transformers",
)
