"""Tensors that nothing can be computed with, in files of other projects: a line, no traceback."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from factories import file_of
from uda.checkpoints.formats.base import ForeignFormat
from uda.checkpoints.formats.mmsegmentation import DEEPLABV3PLUS
from uda.checkpoints.formats.segformer import SEGFORMER
from uda.checkpoints.snapshots import load
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.registry import build_encoder
from uda.utilities.errors import InputError

ODD: dict[str, Callable[[Tensor], Tensor]] = {
    "no dimension": lambda tensor: torch.zeros(()),
    "sparse": lambda tensor: torch.zeros(tensor.shape).to_sparse(),
    "nested": lambda tensor: torch.nested.nested_tensor([torch.zeros(2)]),
    "a byte": lambda tensor: torch.zeros(tensor.shape, dtype=torch.float8_e4m3fn),
}
MIT = ("segformer.encoder.patch_embeddings.0.proj.weight",
       "segformer.encoder.block.0.0.attention.self.key.weight",
       "segformer.encoder.block.0.0.attention.self.value.weight")  # fmt: skip
DINO = ("embeddings.cls_token", *(f"layer.0.attention.{n}_proj.weight" for n in "qkv"))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("names", [MIT, DINO], ids=["mit_b0", "dinov2_vits14"])
def test_of_an_encoder(names: tuple[str, ...], odd: str, tmp_path: Path) -> None:
    path = tmp_path / "file.pth"
    torch.save({name: ODD[odd](torch.zeros(4, 4)) for name in names}, path)
    encoder = "dinov2_vits14" if names is DINO else "mit_b0"
    with pytest.raises(InputError, match="does not hold the weights of a"):
        build_encoder(EncoderConfig(name=encoder, weights=str(path)))
    with pytest.raises(InputError, match="is not a snapshot of this library"):
        load(path)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize(
    ("foreign", "name"),
    [
        (SEGFORMER, "decode_head.linear_fuse.conv.weight"),
        (DEEPLABV3PLUS, "decode_head.bottleneck.conv.weight"),
    ],
    ids=["segformer", "mmsegmentation"],
)
def test_of_a_network(foreign: ForeignFormat, name: str, odd: str, tmp_path: Path) -> None:
    state = file_of(foreign)
    path = tmp_path / "file.pth"
    torch.save(state | {name: ODD[odd](state[name])}, path)
    with pytest.raises(InputError, match=f"0 missing, 0 unexpected, 1 .{name}"):
        load(path)
