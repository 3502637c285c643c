"""VFM-UDA's decoder: its shapes and what it refuses. Its files are in test_foreign_vits.py."""

import pytest
import torch
from torch import nn

from uda.models.decoders.vfm_uda import ChannelNorm, VfmUda, VfmUdaConfig
from uda.models.encoders.base import FeatureShapes
from uda.utilities.errors import InputError

MAPS = FeatureShapes((32,) * 4, (14,) * 4)


def test_logits_lie_at_a_quarter_of_the_stride() -> None:
    torch.manual_seed(0)
    decoder = VfmUdaConfig().build(MAPS, num_classes=5, dropout=0)
    maps = tuple(torch.randn(1, 32, 5, 7) for _ in MAPS.channels)
    logits = decoder(maps)
    assert logits.shape == (1, 5, 20, 28)
    assert torch.equal(logits, decoder((maps[-1],)))  # it reads the deepest map only
    # The classifier begins with a deviation of 0.1.
    wide = VfmUda(1024, 19, dropout=0)
    assert wide.out.weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert not any(m.bias is not None for m in wide.modules() if isinstance(m, nn.Conv2d))
    with pytest.raises(InputError, match="has 30; allowed: multiples of 4"):
        VfmUdaConfig().check(FeatureShapes((30,), (16,)))


def test_each_pixel_is_normalized_over_its_channels() -> None:
    norm = ChannelNorm(4, eps=1e-6)
    features = torch.randn(2, 4, 3, 5) * torch.arange(1, 6)
    wanted = (features - features.mean(1, keepdim=True)) / features.std(
        1, correction=0, keepdim=True
    )
    assert torch.allclose(norm(features), wanted, atol=1e-4)


def test_half_precision_and_channels_last() -> None:
    torch.manual_seed(0)
    decoder = VfmUdaConfig().build(MAPS, num_classes=5, dropout=0)
    features = torch.randn(2, 32, 5, 7)
    exact = decoder((features,))
    last = decoder((features.to(memory_format=torch.channels_last),))
    assert torch.allclose(last, exact, atol=1e-5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = decoder((features,))
    assert (half.float() - exact).abs().max() < 0.05 * exact.abs().max()
