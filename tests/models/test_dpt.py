"""DPT's head: sizes, widths, and how the original sizes follow from the encoder's."""

from collections.abc import Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from uda.models.decoders.dpt import Dpt, DptConfig
from uda.models.encoders.base import FeatureShapes
from uda.utilities.errors import InputError


def sizes(layers: Iterable[nn.Module]) -> tuple[int, ...]:
    """Output channels."""
    return tuple(layer.get_parameter("weight").shape[0] for layer in layers)


def plain(channels: int) -> FeatureShapes:
    return FeatureShapes((channels,) * 4, (14,) * 4)


@pytest.mark.parametrize(
    ("channels", "widths", "fused"),
    [(384, (48, 96, 192, 384), 64), (768, (96, 192, 384, 768), 128),
     (1024, (256, 512, 1024, 1024), 256)],
)  # fmt: skip
def test_sizes_are_the_originals(channels: int, widths: tuple[int, ...], fused: int) -> None:
    with torch.device("meta"):
        decoder = DptConfig().build(plain(channels), num_classes=19, dropout=0)
    assert sizes(decoder.projects) == widths
    assert sizes(decoder.narrow) == (fused,) * 4
    assert all(layer.bias is None for layer in decoder.narrow)
    assert len(decoder.fusions) == 4


def test_logits_are_8_times_the_grid() -> None:
    decoder = DptConfig(channels=4).build(plain(16), num_classes=3, dropout=0)
    maps = tuple(torch.randn(2, 16, 5, 7) for _ in range(4))
    assert decoder(maps).shape == (2, 3, 40, 56)
    pyramid = FeatureShapes((8, 12, 16), (4, 8, 16))
    decoder = DptConfig(channels=4).build(pyramid, num_classes=3, dropout=0)
    maps = tuple(torch.randn(1, c, 40 // s, 56 // s) for c, s in zip(*pyramid, strict=True))
    assert decoder(maps).shape == (1, 3, 20, 28)


def test_maps_are_fused_from_coarse_to_fine() -> None:
    """With residual units that are 0, each level adds its map to the enlarged sum of the coarser
    ones; the classifier is the identity."""
    decoder = Dpt((2, 2), (2, 2), 2, 2, 0.0, resizes=False)
    for name, parameter in decoder.named_parameters():
        torch.nn.init.zeros_(parameter)
        kept = name.startswith(("projects", "narrow", "head")) or ".out." in name
        if kept and name.endswith("weight"):
            torch.nn.init.dirac_(parameter)
    fine, coarse = torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2)
    larger = F.interpolate(coarse, (4, 4), mode="bilinear", align_corners=True)
    wanted = F.interpolate(fine + larger, (8, 8), mode="bilinear", align_corners=True)
    assert torch.allclose(decoder((fine, coarse)), wanted, atol=1e-6)


def test_what_cannot_be_fused_is_refused() -> None:
    with pytest.raises(InputError, match=r"widths is \(8,\); allowed: 4 numbers"):
        DptConfig(widths=(8,)).check(plain(16))
    with pytest.raises(InputError, match="channels is 0"):
        DptConfig(channels=0).check(plain(16))
    with pytest.raises(InputError, match="there are 1"):
        DptConfig().check(FeatureShapes((16,), (14,)))
