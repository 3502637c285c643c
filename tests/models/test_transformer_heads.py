"""SegFormer's and DAFormer's heads: sizes, order of the maps, initialization, refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uda.models.decoders.daformer import DAFormerConfig
from uda.models.decoders.embeddings import PixelLinear
from uda.models.decoders.segformer import SegFormerConfig
from uda.models.encoders.base import FeatureShapes
from uda.utilities.errors import InputError

MIT_B5 = FeatureShapes((64, 128, 320, 512), (4, 8, 16, 32))
SMALL = FeatureShapes((4, 6), (8, 16))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def millions(config: DAFormerConfig | SegFormerConfig) -> float:
    with torch.device("meta"):
        head = config.build(MIT_B5, num_classes=19, dropout=0.1)
    return sum(p.numel() for p in head.parameters()) / 1e6


def test_parameters() -> None:
    assert millions(DAFormerConfig()) == pytest.approx(3.71, abs=0.005)
    assert millions(DAFormerConfig(fusion="conv1")) == pytest.approx(0.53, abs=0.005)
    # Of NVlabs' 84.61 M, all but the encoder's 81.443 and 2451 of an unused classifier.
    assert millions(SegFormerConfig(channels=768)) == pytest.approx(3.16, abs=0.005)


@pytest.mark.parametrize(
    "config",
    [
        DAFormerConfig(channels=8),
        DAFormerConfig(channels=8, fusion="aspp", rates=(2,)),
        DAFormerConfig(channels=8, fusion="conv1"),
        SegFormerConfig(channels=8),
        SegFormerConfig(channels=8, embedding="convolution"),
    ],
)
def test_any_maps(config: DAFormerConfig | SegFormerConfig) -> None:
    head = config.build(SMALL, num_classes=3, dropout=0.5).train()
    maps = (torch.rand(2, 4, 9, 13), torch.rand(2, 6, 5, 7))
    logits = head(maps)
    assert logits.shape == (2, 3, 9, 13)
    logits.square().mean().backward()
    assert all(p.grad is not None for p in head.parameters())
    with torch.autocast("cpu", torch.bfloat16):
        coarse = head.eval()(tuple(m.to(memory_format=torch.channels_last) for m in maps))
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), head(maps), rtol=0.05, atol=0.05)


def test_maps_are_concatenated_finest_first() -> None:
    head = SegFormerConfig(channels=5).build(SMALL, num_classes=3, dropout=0.0)
    maps = (torch.rand(2, 4, 4, 6), torch.rand(2, 6, 2, 3))
    seen: list[Tensor] = []
    head.fusion.register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    head(maps)
    first, second = head.embeddings
    assert isinstance(first, PixelLinear)
    expected = torch.einsum("nchw,dc->ndhw", maps[0], first.weight) + first.bias[:, None, None]
    torch.testing.assert_close(seen[0][:, :5], expected)
    deep = F.interpolate(second(maps[1]), (4, 6), mode="bilinear", align_corners=False)
    torch.testing.assert_close(seen[0][:, 5:], deep)


def test_initialization_of_daformer() -> None:
    head = DAFormerConfig().build(MIT_B5, num_classes=19, dropout=0.1)
    of = head.get_parameter
    for name, std in {
        "fusion.branches.0.0.weight": (2 / 256) ** 0.5,
        "fusion.branches.1.0.weight": (2 / (9 * 1024)) ** 0.5,  # depthwise, over all its channels
        "fusion.branches.1.3.weight": (2 / 256) ** 0.5,
        "fusion.bottleneck.0.weight": (2 / (9 * 256)) ** 0.5,
        "classifier.weight": 0.01,
    }.items():
        assert of(name).std().item() == pytest.approx(std, rel=0.05), name
    assert of("classifier.bias").eq(0).all()
    linear, limit = of("embeddings.0.weight"), 1 / 64**0.5  # PyTorch's default
    assert 0.98 * limit < linear.abs().max() <= limit
    assert not of("embeddings.0.bias").eq(0).any()
    biased = [m for m in head.fusion.modules() if getattr(m, "bias", None) is not None]
    assert all(isinstance(m, nn.BatchNorm2d) for m in biased)


def test_dropout_drops_whole_channels() -> None:
    for config in (DAFormerConfig(channels=64), SegFormerConfig(channels=64)):
        head = config.build(SMALL, num_classes=3, dropout=0.5)
        assert isinstance(head.dropout, nn.Dropout2d)


@pytest.mark.parametrize(
    ("config", "changes", "says"),
    [
        (DAFormerConfig(), {"channels": 0}, "model.decoder.channels is 0; allowed: 1"),
        (DAFormerConfig(), {"fusion": "isa"}, "fusion is 'isa'; allowed: sepaspp, aspp, conv1"),
        (DAFormerConfig(), {"rates": (0,)}, r"rates is \(0,\); allowed: dilations"),
        (SegFormerConfig(), {"channels": 0}, "model.decoder.channels is 0; allowed: 1"),
        (SegFormerConfig(), {"embedding": "mlp"}, "'mlp'; allowed: linear, convolution"),
    ],
)
def test_refusals(
    config: DAFormerConfig | SegFormerConfig, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        replace(config, **changes).check(MIT_B5)
