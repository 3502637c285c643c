"""Files with vision transformers: VFM-UDA's networks, and backbones as initial weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from factories import file_of
from recipes import recipe_image, recipe_weight
from uda.checkpoints.foreign import ForeignCheckpoint, read_foreign
from uda.checkpoints.formats.vfm_uda import VFM_UDA
from uda.checkpoints.matching import describe_unknown
from uda.models.decoders.vfm_uda import VfmUdaConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.registry import build_encoder
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "vfm_uda_vitb14.npz"
State = dict[str, Tensor]


def config_of(encoder: str) -> EncoderDecoderConfig:
    return EncoderDecoderConfig(
        encoder=EncoderConfig(name=encoder, weights="none"),
        decoder=VfmUdaConfig(),
        input_scale=1.1,
        dropout=0.0,
    )


def network_of(encoder: str, value: float, prefix: str = "") -> State:
    """The entries of one network, each tensor one number."""
    names = file_of(VFM_UDA, config_of(encoder))
    width = len(names["encoder.norm.weight"])
    shapes = {name: tensor.shape for name, tensor in names.items()}
    mask = {name: torch.Size((1, width)) for name in VFM_UDA.unused}
    return {prefix + n: torch.tensor(float(value)).expand(s) for n, s in (shapes | mask).items()}


def read(content: object) -> ForeignCheckpoint:
    found = read_foreign(content, origin="a file")
    assert found is not None
    return found


def test_logits_of_a_file_are_the_originals() -> None:
    """Of an image of 64 pixels, which the network resizes to 70 and so to 5x5 tokens."""
    names = network_of("dinov2_vitb14", 0)
    assert len(names) == 186
    foreign = read({f"network.{n}": recipe_weight(n, t) for n, t in names.items()})
    assert foreign.title == "VFM-UDA on dinov2_vitb14"
    assert foreign.model == config_of("dinov2_vitb14")
    with torch.device("meta"):
        network = foreign.model.build(foreign.num_classes).eval()
    network.load_state_dict(foreign.state, assign=True)
    with torch.no_grad():
        logits = network(recipe_image(64, 64)).logits[0]
    expected = np.load(GOLDEN)["main_64x64_vit70"]
    kept = logits[:, ::3, ::3].numpy()
    assert kept.shape == expected.shape == (19, 22, 22)
    assert np.abs(kept - expected).max() / np.abs(expected).max() < 1e-5


@pytest.mark.slow
def test_a_training_has_a_student_and_a_teacher() -> None:
    students = network_of("dinov2_vits14", 1, "network.")
    teachers = network_of("dinov2_vits14", 2, "network_ema.")
    foreign = read({"state_dict": students | teachers, "global_step": 40000})
    assert foreign.model == config_of("dinov2_vits14")
    assert foreign.networks == "student and teacher"
    assert foreign.teacher is not None
    assert foreign.state.keys() == foreign.teacher.keys()
    for name, tensor in foreign.state.items():
        if name not in ("mean", "std"):
            assert tensor.unique().tolist() == [1], name
            assert foreign.teacher[name].unique().tolist() == [2], name
    assert read(network_of("dinov2_vits14", 1)).teacher is None


@pytest.mark.parametrize("size", ["s", "b", "l"])
def test_the_size_is_told_by_the_tensors(size: str) -> None:
    names = {n: t.to("meta") for n, t in network_of(f"dinov2_vit{size}14", 0).items()}
    assert VFM_UDA.network(names) == config_of(f"dinov2_vit{size}14")


def test_a_file_that_lacks_a_block_is_refused() -> None:
    state = network_of("dinov2_vits14", 1, "network.")
    del state["network.encoder.blocks.7.attn.qkv.weight"]
    with pytest.raises(InputError, match=r"encoder\.blocks\.7\.attn\.qkv\.weight"):
        read(state)


@pytest.mark.parametrize(
    ("name", "prefix"), [("dinov2_vitb14_reg", "module.backbone."), ("dinov3_vitl16", "")]
)
def test_a_backbone_alone_says_how_it_is_used(name: str, prefix: str) -> None:
    with torch.device("meta"):
        state = build_encoder(EncoderConfig(name=name, weights="none")).state_dict()
    content = {prefix + key: tensor for key, tensor in state.items()}
    said = describe_unknown(content | {f"{prefix}mask_token": torch.zeros(1, 3)}, "a.pth")
    assert f"the encoder {name} alone" in said
    assert f"--set model.encoder.name={name} --set model.encoder.weights=a.pth" in said
    assert read_foreign(content, origin="a.pth") is None
