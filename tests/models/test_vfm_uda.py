"""VFM-UDA's network: the original's logits, its decoder's shapes and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from recipes import recipe_image, recipe_weight
from uda.models.decoders.vfm_uda import ChannelNorm, VfmUda, VfmUdaConfig
from uda.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
from uda.models.encoders.base import EncoderConfig, FeatureShapes
from uda.models.encoders.registry import build_encoder
from uda.utilities.errors import InputError

GOLDEN = Path(__file__).parents[1] / "data" / "golden" / "vfm_uda_vitb14.npz"
CONFIG = EncoderDecoderConfig(
    encoder=EncoderConfig(name="dinov2_vitb14", weights="none"),
    decoder=VfmUdaConfig(),
    input_scale=1.1,
    dropout=0,
)
MAPS = FeatureShapes((32,) * 4, (14,) * 4)


def test_logits_are_the_originals() -> None:
    """Of an image of 64 pixels, which the network resizes to 70 and so to 5x5 tokens."""
    with torch.device("meta"):
        encoder = build_encoder(CONFIG.encoder)
        decoder = CONFIG.decoder.build(encoder.shapes, num_classes=19, dropout=0)
    for module, prefix in ((encoder, "encoder."), (decoder, "")):
        own = module.state_dict()
        module.load_state_dict(
            {n: recipe_weight(prefix + n, t) for n, t in own.items()}, assign=True
        )
    network = EncoderDecoder(encoder, decoder, None, CONFIG, 19).eval()
    with torch.no_grad():
        logits = network(recipe_image(64, 64)).logits[0]
    expected = np.load(GOLDEN)["main_64x64_vit70"]
    kept = logits[:, ::3, ::3].numpy()
    assert kept.shape == expected.shape == (19, 22, 22)
    assert np.abs(kept - expected).max() / np.abs(expected).max() < 1e-5


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
