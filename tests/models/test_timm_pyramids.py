"""Networks of timm with their own feature maps: strides, sizes, layers, drop path, files."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from uda.models.decoders.upernet import UpernetConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig
from uda.models.encoders.timm import TimmBackbone, build
from uda.optim.teacher import disable_dropout
from uda.utilities.errors import InputError

timm = pytest.importorskip("timm")

PYRAMID = (4, 8, 16, 32)
RESNET = "resnet10t"
CONVNEXT = "convnext_atto"
VIT = "vit_tiny_patch16_224"
MAMBA = "mambaout_femto"  # its maps have the channels last


def encoder(name: str, **changes: Any) -> TimmBackbone:  # noqa: ANN401
    torch.manual_seed(0)
    return build(EncoderConfig(name=f"timm/{name}", **{"weights": "none"} | changes))


@pytest.mark.parametrize(
    ("name", "strides", "divisor"),
    [
        (RESNET, PYRAMID, 1),
        (CONVNEXT, PYRAMID, 1),
        (MAMBA, PYRAMID, 1),
        pytest.param("mobilenetv4_conv_small", PYRAMID, 1, marks=pytest.mark.slow),
        pytest.param("efficientnet_lite0", PYRAMID, 1, marks=pytest.mark.slow),
        pytest.param("hiera_tiny_224", PYRAMID, 32, marks=pytest.mark.slow),  # made for one size
        ("swin_tiny_patch4_window7_224", PYRAMID, 32),  # channels last, too
        (VIT, (16,) * 4, 16),
        ("shvit_s1", (16, 32, 64), 1),
    ],
)
def test_every_pyramid_is_decoded_at_any_size(
    name: str, strides: tuple[int, ...], divisor: int
) -> None:
    torch.manual_seed(0)
    network = EncoderDecoderConfig(
        encoder=EncoderConfig(name=f"timm/{name}", weights="none"),
        decoder=UpernetConfig(channels=8),
    ).build(3)
    backbone = network.backbone
    assert isinstance(backbone, TimmBackbone)
    assert (backbone.strides, backbone.divisor, network.divisor) == (strides, divisor, divisor)
    height, width = (65, 97) if divisor == 1 else (64, 96)
    for found, channels, stride in zip(
        backbone(torch.rand(2, 3, height, width)), backbone.channels, strides, strict=True
    ):
        assert found.shape[:2] == (2, channels)
        exact = height / stride, width / stride
        for side, wanted in zip(found.shape[2:], exact, strict=True):
            assert side in (math.floor(wanted), math.ceil(wanted))
    output = network(torch.rand(2, 3, 65, 97))
    assert output.logits.shape == (2, 3, 65, 97)
    output.logits.square().mean().backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "output_stride"),
    [(RESNET, None), (RESNET, 16), ("inception_resnet_v2", 16), (VIT, None)],
)
def test_a_snapshot_is_opened_without_memory(name: str, output_stride: int | None) -> None:
    with torch.device("meta"):
        backbone = encoder(name, output_stride=output_stride)
    assert all(p.is_meta for p in backbone.parameters())


def test_channels_come_second() -> None:
    """As in the network itself, where they come last."""
    backbone = encoder(MAMBA).eval()
    images = torch.rand(1, 3, 64, 96)
    for ours, theirs in zip(backbone(images), backbone.network(images), strict=True):
        assert torch.equal(ours, theirs.permute(0, 3, 1, 2))


def test_layers_are_those_of_timm_shallowest_first() -> None:
    for name, count in ((RESNET, 5), (VIT, 13)):
        backbone = encoder(name)
        layers = backbone.layers()
        assert len(layers) == count
        of_layers = sorted(id(p) for layer in layers for p in layer)
        assert of_layers == sorted(id(p) for p in backbone.parameters())
        parameters = list(backbone.parameters())
        assert layers[0][0] is parameters[0]
        assert layers[-1][-1] is parameters[-1]
    with pytest.raises(InputError, match=r"poolformer_s12 of timm does not tell the order"):
        encoder("poolformer_s12").layers()


def test_drop_path_is_timms() -> None:
    backbone = encoder(CONVNEXT, drop_path=0.9).train()
    images = torch.rand(1, 3, 64, 64).expand(8, -1, -1, -1)
    for layer in backbone.modules():  # untrained, blocks change next to nothing
        if hasattr(layer, "gamma") and isinstance(layer.gamma, nn.Parameter):
            nn.init.ones_(layer.gamma)
    dropped = backbone(images)[-1]
    assert not torch.allclose(dropped[0], dropped[1])
    disable_dropout(backbone)
    kept = backbone(images)[-1]
    assert torch.allclose(kept[0], kept[1])
    with pytest.raises(InputError, match=r"encoder.drop_path is 0.1, but ghostnet_100 .*path=none"):
        encoder("ghostnet_100", drop_path=0.1)
    assert encoder("ghostnet_100", drop_path=0.0).provenance == "random"


@pytest.mark.parametrize("name", [CONVNEXT, VIT, MAMBA])
def test_the_backward_pass_computes_the_same_again(name: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        backbone = encoder(name, checkpointing=checkpointing).train()
        backbone.checkpointing = checkpointing
        maps = backbone(torch.full((1, 3, 64, 96), 0.3))
        sum(m.square().mean() for m in maps).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    for once, again in zip(*gradients, strict=True):
        assert once is not None
        assert again is not None
        assert torch.equal(once, again)


def test_what_cannot_be_computed_again_is_refused() -> None:
    with pytest.raises(InputError, match=r"no stages that can be .*checkpointing=false"):
        encoder("efficientnet_lite0", checkpointing=True)


def test_a_file_of_a_whole_vision_transformer_gives_its_features(tmp_path: Path) -> None:
    torch.manual_seed(3)
    whole = timm.create_model(VIT, dynamic_img_size=True).eval()
    torch.save(whole.state_dict(), tmp_path / "whole.pth")
    backbone = encoder(VIT, weights=str(tmp_path / "whole.pth")).eval()
    images = torch.rand(1, 3, 48, 64)
    wanted = whole.forward_intermediates(
        images, indices=[2, 5, 8, 11], intermediates_only=True, norm=False
    )
    for ours, theirs in zip(backbone(images), wanted, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_a_network_made_for_one_size_is_timms_for_another() -> None:
    """With the weights that timm resizes for it."""
    backbone = encoder("hiera_tiny_224", drop_path=0.9).eval()
    theirs = timm.create_model("hiera_tiny_224", img_size=(64, 96), features_only=True).eval()
    state = {name: t.clone() for name, t in backbone.network.state_dict().items()}
    state["model.pos_embed"] = timm.layers.resample_abs_pos_embed(
        state["model.pos_embed"], new_size=[16, 24], old_size=[56, 56], num_prefix_tokens=0
    )
    theirs.load_state_dict(state)
    images = torch.rand(1, 3, 64, 96)
    with torch.device("meta"):
        assert encoder("hiera_tiny_224").divisor == 32
    drawn = torch.get_rng_state()
    for ours, wanted in zip(backbone(images), theirs(images), strict=True):
        assert torch.allclose(ours, wanted, atol=1e-5)
    # Layers for a new size are made without drawing anything: runs stay functions of their seed.
    assert torch.equal(torch.get_rng_state(), drawn)
    whole = torch.rand(1, 3, 224, 224)
    for ours, wanted in zip(backbone(whole), backbone.network(whole), strict=True):
        assert torch.equal(ours, wanted)
    dropped = backbone.train()(images.expand(2, -1, -1, -1))[-1]
    assert not torch.allclose(dropped[0], dropped[1])
    disable_dropout(backbone)
    assert torch.allclose(backbone(images)[-1], theirs(images)[-1], atol=1e-5)
    # A teacher is a copy; its weights are its own.
    copied = copy.deepcopy(backbone)
    with torch.no_grad():
        copied.network.get_parameter("model.pos_embed").add_(1)
    assert not torch.allclose(copied(images)[-1], backbone(images)[-1])


def test_a_network_of_one_size_is_refused() -> None:
    with pytest.raises(InputError, match=r"encoder.name timm/gcvit_xxtiny .* than 224x224 pixels"):
        encoder("gcvit_xxtiny")
