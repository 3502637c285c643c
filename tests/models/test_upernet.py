"""UPerNet: transformers' on the same weights, a pyramid from maps of one stride, refusals."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from uda.models.decoders.upernet import Upernet, UpernetConfig
from uda.models.encoders.base import FeatureShapes
from uda.utilities.errors import InputError

TINY = UpernetConfig(channels=16)
MAPS = FeatureShapes((8, 12, 16, 20), (4, 8, 16, 32))
ONE_STRIDE = FeatureShapes((16,) * 4, (14,) * 4)


def built(maps: FeatureShapes, **changes: Any) -> Upernet:  # noqa: ANN401
    torch.manual_seed(0)
    config = replace(TINY, **changes)
    config.check(maps)
    return config.build(maps, num_classes=5, dropout=0)


def features_of(maps: FeatureShapes, *, height: int, width: int, images: int = 2) -> Any:  # noqa: ANN401
    """Maps of sizes rounded up."""
    return tuple(
        torch.randn(images, c, -(-height // s), -(-width // s))
        for c, s in zip(maps.channels, maps.strides, strict=True)
    )


def test_it_is_transformers_head_on_the_same_weights() -> None:
    transformers = pytest.importorskip("transformers")
    upernet = pytest.importorskip("transformers.models.upernet.modeling_upernet")
    settings = transformers.UperNetConfig(hidden_size=16, num_labels=5)
    theirs = upernet.UperNetHead(settings, in_channels=list(MAPS.channels)).eval()
    ours = built(MAPS, norm="batch").eval()
    for module in ours.modules():  # so that a wrong order of normalization shows
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    parts = [
        *zip(
            (block.get_submodule("1") for block in theirs.psp_modules.blocks),
            ours.pooled,
            strict=True,
        ),
        (theirs.bottleneck, ours.bottleneck),
        *zip(theirs.lateral_convs, ours.lateral, strict=True),
        *zip(theirs.fpn_convs, ours.smooth, strict=True),
        (theirs.fpn_bottleneck, ours.fuse),
    ]
    for their_part, our_part in parts:
        assert isinstance(our_part, nn.Sequential)
        their_part.conv.load_state_dict(our_part[0].state_dict())
        their_part.batch_norm.load_state_dict(our_part[1].state_dict())
    theirs.classifier.load_state_dict(ours.classifier.state_dict())
    copied = sum(p.numel() for p in theirs.parameters())
    assert copied == sum(p.numel() for p in ours.parameters())
    features = features_of(MAPS, height=65, width=97)
    with torch.no_grad():
        wanted, found = theirs(features), ours(features)
    assert found.shape == (2, 5, 17, 25)
    assert torch.allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("size", [(5, 7), (1, 1)])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_maps_of_one_stride_become_a_pyramid(size: tuple[int, int], norm: str) -> None:
    decoder = built(ONE_STRIDE, norm=norm)
    features = features_of(ONE_STRIDE, height=14 * size[0], width=14 * size[1])
    logits = decoder(features)
    assert logits.shape == (2, 5, 4 * size[0], 4 * size[1])
    assert decoder.pyramid is not None
    sizes = [tuple(m.shape[2:]) for m in decoder.pyramid(features)]
    halved = (-(-size[0] // 2), -(-size[1] // 2))
    assert sizes == [(4 * size[0], 4 * size[1]), (2 * size[0], 2 * size[1]), size, halved]
    logits.square().mean().backward()
    assert all(p.grad is not None for p in decoder.parameters())


def test_maps_of_several_strides_stay_as_they_are() -> None:
    for maps in (MAPS, FeatureShapes((8, 12, 16, 20), (4, 8, 8, 8)), FeatureShapes((8,), (16,))):
        decoder = built(maps)
        assert decoder.pyramid is None
        finest = maps.strides[0]
        found: Tensor = decoder(features_of(maps, height=65, width=97))
        assert found.shape[2:] == (-(-65 // finest), -(-97 // finest))


def test_one_image_is_enough_with_group_normalization() -> None:
    features = features_of(MAPS, height=64, width=64, images=1)
    loss = built(MAPS)(features).square().mean()
    assert loss.isfinite()
    with pytest.raises(InputError, match=r"a batch of 1 image .* model\.decoder\.norm=group"):
        built(MAPS, norm="batch")(features)


def test_half_precision_and_channels_last() -> None:
    decoder = built(ONE_STRIDE).eval()
    features = features_of(ONE_STRIDE, height=42, width=70)
    exact = decoder(features)
    last = decoder(tuple(m.to(memory_format=torch.channels_last) for m in features))
    assert torch.allclose(last, exact, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decoder(features)
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize(
    ("maps", "changes", "says"),
    [
        (MAPS, {"pool_scales": ()}, r"pool_scales is \(\); .*pool_scales=1,2,3,6"),
        (MAPS, {"pool_scales": (0, 1)}, "numbers of 1 or more"),
        (MAPS, {"channels": 1}, "model.decoder.channels is 1; allowed: 2 or more"),
        (MAPS, {"norm": "layer"}, "model.decoder.norm is 'layer'; allowed: batch, group"),
        (FeatureShapes((8, 8), (16, 16)), {}, "2 maps, all of stride 16; allowed: one, 4, or"),
    ],
)
def test_what_cannot_be_built_is_refused(
    maps: FeatureShapes, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        built(maps, **changes)
