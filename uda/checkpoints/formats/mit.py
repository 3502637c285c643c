"""Mix Transformers: which one a file holds, and files with one alone, as initial weights."""

import re

import torch

from uda.checkpoints.formats.base import BackboneFile, Entries
from uda.checkpoints.matching import rows
from uda.models.encoders.mit import SIZES, MixTransformer
from uda.utilities.weight_files import compare

QUIRKS = "corners not aligned; RGB input by ImageNet's mean and deviation"


def mit_of(entries: Entries, prefix: str = "") -> str:
    """The name of the MiT whose blocks have these names after `prefix`; mit_b5 where there is none.

    The third stage tells: 2 (B0 and B1, which differ in width), 6, 18, 27 or 40 blocks.
    """
    pattern = re.compile(rf"{re.escape(prefix)}block3\.(\d{{1,3}})\.")
    found = [int(match[1]) for name in entries if (match := pattern.match(name))]
    blocks = max(found, default=-1) + 1
    if not blocks:
        return "mit_b5"
    narrow = rows(entries.get(f"{prefix}patch_embed1.proj.bias")) == SIZES["mit_b0"].channels[0]
    fitting = [name for name, size in SIZES.items() if blocks <= size.depths[2]]
    return next(
        (n for n in fitting if (n == "mit_b0") == narrow), fitting[0] if fitting else "mit_b5"
    )


def _use(entries: Entries) -> str | None:
    if not any("patch_embed" in name for name in entries):
        return None  # at no cost
    name = mit_of(entries)
    with torch.device("meta"):
        network = MixTransformer(name, drop_path=0.0, patch_eps=1e-5)
    encoder = network.entries(entries)
    found = compare(encoder, {n: t.shape for n, t in network.state_dict().items()})
    if not found.complete or found.unexpected:
        return None
    return (
        f"the encoder {network.title} alone, which can be used as initial weights: "
        f"--set model.encoder.name={name} --set model.encoder.weights={{file}}"
    )


MIX_TRANSFORMERS = BackboneFile(use=_use)
