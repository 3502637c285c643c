"""ResNet-34, ResNetV1c, DeepLab-v2's decoder and ProDA's network: sizes, weights, refusals."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from uda.models.decoders.deeplabv2 import DeepLabV2DecoderConfig
from uda.models.encoder_decoder import EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig, FeatureShapes
from uda.models.encoders.registry import build_encoder
from uda.models.encoders.resnet import ResNetBackbone
from uda.models.proda import ProDAConfig
from uda.utilities.errors import InputError

TINY = EncoderConfig(name="resnet50_v1c", weights="none", width=4, output_stride=8)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def test_maps_and_layers() -> None:
    encoder = build_encoder(TINY)
    assert encoder.shapes == FeatureShapes((16, 32, 64, 128), (4, 8, 8, 8))
    maps = encoder(torch.rand(1, 3, 65, 97))
    assert [tuple(m.shape[1:]) for m in maps] == [
        (16, 17, 25), (32, 9, 13), (64, 9, 13), (128, 9, 13)
    ]  # fmt: skip
    layers = encoder.layers()
    assert len(layers) == 1 + 3 + 4 + 6 + 3
    counted = [id(p) for layer in layers for p in layer]
    assert sorted(counted) == sorted(id(p) for p in encoder.parameters())
    assert len(layers[0]) == 9


def test_the_first_block_of_a_dilated_stage_keeps_the_dilation_before_it() -> None:
    encoder = build_encoder(TINY)
    dilations = [
        [block.conv2.dilation[0] for block in stage]  # type: ignore[union-attr]
        for stage in (encoder.layer3, encoder.layer4)
    ]
    assert dilations == [[1, 2, 2, 2, 2, 2], [2, 4, 4]]


def test_weights_from_a_file_of_mmsegmentation(tmp_path: Path) -> None:
    state = build_encoder(TINY).state_dict()
    torch.save({"state_dict": state | {"fc.weight": torch.zeros(1)}}, tmp_path / "bare.pth")
    whole = {f"backbone.{name}": tensor for name, tensor in state.items()}
    whole["decode_head.conv_seg.weight"] = torch.zeros(1)
    torch.save({"meta": {}, "state_dict": whole}, tmp_path / "whole.pth")
    for file in ("bare.pth", "whole.pth"):
        path = tmp_path / file
        found = build_encoder(EncoderConfig(name="resnet50_v1c", weights=str(path), width=4))
        assert found.provenance.startswith(f"file {file} sha256:")
        assert all(torch.equal(found.state_dict()[name], state[name]) for name in state)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EncoderConfig(name="resnet50_v1c"), "no download for resnet50_v1c; allowed: none, or the"),
        (EncoderConfig(name="resnet50_v1c", weights="none", width=5), "allowed: even numbers"),
        (EncoderConfig(name="resnet50_v1c", weights="none", drop_path=0.1), "no such setting"),
        (EncoderConfig(name="resnet34_v1c", weights="none"), "allowed: .*resnet50_v1c"),
    ],
)
def test_settings_that_are_refused(config: EncoderConfig, message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_encoder(config)


def test_resnet_34_has_torchvisions_entries() -> None:
    from torchvision.models import resnet34

    with torch.device("meta"):
        ours = ResNetBackbone("resnet34", width=64, output_stride=32).state_dict()
        theirs = resnet34().state_dict()
    assert ours.keys() == {name for name in theirs if not name.startswith("fc.")}
    assert all(theirs[name].shape == tensor.shape for name, tensor in ours.items())


def test_the_decoder_sums_dilated_convolutions() -> None:
    shapes = FeatureShapes((8, 16), (4, 8))
    decoder = DeepLabV2DecoderConfig(rates=(1, 3)).build(shapes, num_classes=5, dropout=0.0)
    maps = (torch.rand(1, 8, 18, 26), torch.rand(1, 16, 9, 13))
    state = decoder.state_dict()
    expected = sum(
        torch.nn.functional.conv2d(
            maps[1], state[f"branches.{i}.weight"], state[f"branches.{i}.bias"], padding=rate,
            dilation=rate,
        )
        for i, rate in enumerate((1, 3))
    )  # fmt: skip
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(decoder(maps), expected)
    for rates, message in (((), "rates is empty"), ((0,), "dilations of 1 or more")):
        with pytest.raises(InputError, match=message):
            EncoderDecoderConfig(encoder=TINY, decoder=DeepLabV2DecoderConfig(rates=rates)).build(5)


@pytest.mark.parametrize("input_norm", [False, True])
def test_proda_reads_images_as_they_are(input_norm: bool) -> None:
    config = ProDAConfig(
        backbone="resnet18", backbone_weights="none", backbone_width=4, input_norm=input_norm
    )
    network = config.build(5)
    images = torch.rand(2, 3, 41, 73)
    assert torch.equal(network.normalize(images), images)
    output = network(images)
    assert output.logits.shape == (2, 5, 41, 73)
    assert output.auxiliary_logits is None
    assert ("input_norm.weight" in network.state_dict()) == input_norm
    output.logits.square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())
    assert network.state_dict()["main.head.1.weight"].shape == (5, 16, 1, 1)
