"""Mix Transformers' weights in the names of transformers, and their download."""

from collections.abc import Mapping
from pathlib import Path

import torch

from uda.models.encoders.base import Encoder, EncoderConfig
from uda.utilities.errors import InputError
from uda.utilities.extras import require_extra
from uda.utilities.hub import by_hand, without_retries
from uda.utilities.weight_files import fill, is_array, read_weights, reason

_OUTER = ("segformer.", "encoder.")  # before the encoder's names
# Parts of a name in files that transformers wrote, and of the authors; the first that fits counts.
_PARTS = (
    ("attention.self.query.", "attn.q."),
    ("attention.self.key.", "attn.k."),
    ("attention.self.value.", "attn.v."),
    ("attention.self.sr.", "attn.sr."),
    ("attention.self.layer_norm.", "attn.norm."),
    ("attention.output.dense.", "attn.proj."),
    ("layer_norm_1.", "norm1."),
    ("layer_norm_2.", "norm2."),
    ("mlp.dense1.", "mlp.fc1."),
    ("mlp.dense2.", "mlp.fc2."),
)


def from_transformers(state: Mapping[str, object]) -> dict[str, object]:
    """The entries of a file, those with transformers' names under the authors'. Its classifier
    is named as theirs, "head"; keys and values become one entry."""
    named = {_renamed(name): value for name, value in state.items()}
    for name in [name for name in named if ".attn.k." in name]:
        other = name.replace(".attn.k.", ".attn.v.")
        keys, values = named.get(name), named.get(other)
        if is_array(keys) and is_array(values) and keys.shape == values.shape:
            del named[name], named[other]
            named[name.replace(".attn.k.", ".attn.kv.")] = torch.cat([keys, values])
    return named


def _renamed(name: str) -> str:
    if name.startswith("classifier."):
        return name.replace("classifier.", "head.", 1)
    inner = name
    for prefix in _OUTER:
        inner = inner.removeprefix(prefix)
    part, _, rest = inner.partition(".")
    index, _, rest = rest.partition(".")
    stage = int(index) + 1 if index.isdecimal() and len(index) == 1 else 0
    if stage and part == "patch_embeddings":
        return f"patch_embed{stage}.{rest.replace('layer_norm.', 'norm.', 1)}"
    if stage and part == "layer_norm":
        return f"norm{stage}.{rest}"
    if stage and part == "block":
        for theirs, own in _PARTS:
            rest = rest.replace(theirs, own, 1)
        return f"block{stage}.{rest}"
    return name


def load_hub(encoder: Encoder, config: EncoderConfig) -> None:
    """Fills `encoder` with the authors' ImageNet weights of `config.name` from the Hugging Face hub
    (or its cache), and notes which.

    Raises InputError when they cannot be downloaded.
    """
    option = config.option("weights")
    instead = f"use --set {option}=none, or the path of a file, such as mit_b5.pth"
    repository = f"nvidia/{config.name.replace('_', '-')}"
    hub = require_extra("hub", needed_by=f"--set {option}=imagenet for {config.name}")
    try:
        with without_retries():
            path = Path(hub.hf_hub_download(repository, "pytorch_model.bin"))
    except Exception as error:  # of the hub's client, of HTTP or of the disk
        raise InputError(
            f"the ImageNet weights of {config.name} could not be downloaded from {repository} on "
            f"the Hugging Face hub ({reason(error)}): "
            + by_hand(repository, "pytorch_model.bin", option)
        ) from error
    content = read_weights(path, expected=f"the file of {repository}", instead=instead)
    state = content if isinstance(content, Mapping) else {}
    fill(
        encoder, encoder.entries(state), origin=f"{repository} ({path})", title=encoder.title,
        instead=instead,
    )  # fmt: skip
    encoder.provenance = f"Hugging Face {repository}"
