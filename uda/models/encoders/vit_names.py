"""DINOv2's and DINOv3's entries under the names that transformers gives them."""

import re
from collections.abc import Mapping

import torch

from uda.utilities.weight_files import is_array

_MARK = "embeddings.cls_token"
# Of versions 4 and 5, which name attention and blocks differently.
_NAMES = (
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.(?:projection\.)?", "patch_embed.proj."),
    (r"^embeddings\.", ""),
    (r"^(?:encoder\.|model\.)?layer\.", "blocks."),
    (r"\.attention\.(?:output\.dense|o_proj)\.", ".attn.proj."),
    (r"\.attention\.(?:attention\.)?(q|k|v)(?:uery|ey|alue|_proj)\.", r".attn.\1."),
    (r"\.layer_scale(\d)\.lambda1$", r".ls\1.gamma"),
    (r"\.mlp\.up_proj\.", ".mlp.fc1."),
    (r"\.mlp\.down_proj\.", ".mlp.fc2."),
    (r"^layernorm\.", "norm."),
)
_QUERY = re.compile(r"^(.+\.attn\.)q\.(weight|bias)$")


def with_original_names(state: Mapping[str, object]) -> dict[str, object]:
    """A state dict of transformers' Dinov2Model, Dinov2WithRegistersModel or DINOv3ViTModel under
    the names of the authors' files; any other as it is."""
    if _MARK not in state:
        return dict(state)
    renamed: dict[str, object] = {}
    for name, value in state.items():
        own = name
        for pattern, replacement in _NAMES:
            own = re.sub(pattern, replacement, own)
        renamed[own] = value
    if "pos_embed" not in renamed and "register_tokens" in renamed:
        renamed["storage_tokens"] = renamed.pop("register_tokens")
    for name in list(renamed):
        if found := _QUERY.match(name):
            _join(renamed, found[1], found[2])
    return renamed


def _join(state: dict[str, object], place: str, kind: str) -> None:
    """Joins queries, keys and values; DINOv3's keys have no bias, which is 0 in the originals."""
    query, value = state[f"{place}q.{kind}"], state.get(f"{place}v.{kind}")
    key = state.get(f"{place}k.{kind}")
    if key is None and kind == "bias" and is_array(query):
        key = torch.zeros_like(query)
    parts = [part for part in (query, key, value) if is_array(part)]
    if len(parts) < 3 or len({part.shape for part in parts}) > 1:
        return  # told as missing and unexpected
    state[f"{place}qkv.{kind}"] = torch.cat(parts)
    for letter in "qkv":
        state.pop(f"{place}{letter}.{kind}", None)
