"""Generators and discriminators, by the figures of their papers, and what they play for."""

from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from uda.translation.config import TrainingConfig
from uda.translation.cut import patch_nce
from uda.translation.discriminators import PatchDiscriminator, fooling_loss, telling_loss
from uda.translation.generators import BlurredDouble, GeneratorConfig
from uda.translation.image_pool import ImagePool

SMALL = GeneratorConfig(blocks=2, width=16)


def parameters_of(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_sizes_and_names_are_the_originals() -> None:
    generator, discriminator = GeneratorConfig().build(), PatchDiscriminator()
    assert (parameters_of(generator), parameters_of(discriminator)) == (11_378_179, 2_764_737)
    blocks = (f"model.{n}.conv_block.{m}" for n in range(10, 19) for m in (1, 5))
    layers = chain(("model.1", "model.4", "model.7"), blocks, ("model.19", "model.22", "model.26"))
    names = [f"{layer}.{kind}" for layer in layers for kind in ("weight", "bias")]
    assert [name for name, _ in generator.named_parameters()] == names
    assert [n for n in discriminator.state_dict() if n.endswith("weight")] == [
        f"model.{place}.weight" for place in (0, 2, 5, 8, 11)
    ]
    dropping = GeneratorConfig(dropout=True).build().state_dict()
    assert "model.10.conv_block.6.weight" in dropping


def test_a_score_is_of_70_pixels() -> None:
    discriminator = PatchDiscriminator(width=16).eval()
    discriminator.initialize()
    for layer in discriminator.modules():  # its statistics are of the whole image
        if isinstance(layer, nn.InstanceNorm2d):
            layer.forward = lambda values: values  # type: ignore[assignment, method-assign]
    image = torch.rand(1, 3, 256, 256, requires_grad=True)
    scores = discriminator(image)
    assert scores.shape == (1, 1, 30, 30)
    scores[0, 0, 15, 15].backward()
    assert image.grad is not None
    seen = image.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [70, 70]


@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(32, 48), (29, 43)])
def test_images_keep_size_and_range(size: tuple[int, int], antialias: bool) -> None:
    generator = GeneratorConfig(blocks=2, width=16, antialias=antialias).build()
    generator.initialize()
    images = torch.rand(2, 3, *size)
    made = generator(images)
    assert made.shape == images.shape
    assert 0 <= made.min() < made.max() <= 1
    assert len(generator.features(images)) == 5


def test_the_antialiased_doubling_is_the_filter_1_3_3_1() -> None:
    values = torch.zeros(1, 1, 1, 5)
    values[..., 2] = 4.0
    doubled = BlurredDouble()(values)[0, 0, 0]
    assert doubled.tolist() == [0, 0, 0, 1, 3, 3, 1, 0, 0, 0]


def test_least_squares_by_hand() -> None:
    scores = torch.tensor([0.5, -1.0])
    assert fooling_loss(scores).item() == 2.125
    assert telling_loss(torch.ones(2), scores).item() == 0.5 * 0.625


def test_the_learning_rate_falls_as_in_the_released_code() -> None:
    train = TrainingConfig(epochs=100, decay_epochs=100)
    factors = [train.lr_factor(epoch * 40, 40) for epoch in (0, 98, 99, 198, 199)]
    assert factors == pytest.approx([1, 1, 100 / 101, 1 / 101, 0])
    assert train.lr_factor(98 * 40 + 39, 40) == 1  # within an epoch it does not change
    assert train.last_step(40) == 8000
    assert TrainingConfig(epochs=2, decay_epochs=0).lr_factor(79, 40) == 1


def test_patch_nce_by_hand() -> None:
    queries = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    keys = torch.tensor([[[1.0, 0.0], [0.6, 0.8]]])
    assert patch_nce(queries, keys, 0.07).item() == pytest.approx(0.00165198, rel=1e-4)


def numbered(first: int, count: int) -> Tensor:
    """Images of one pixel, each of its own number."""
    return torch.arange(first, first + count).float().reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1)


def test_the_pool_stores_50_and_then_exchanges_every_second_image() -> None:
    pool, generator = ImagePool(50), torch.Generator().manual_seed(0)
    first = numbered(0, 50)
    assert torch.equal(pool.exchanged(first, generator), first)
    later = numbered(50, 4000)
    shown = pool.exchanged(later, generator)
    stored = (shown != later)[:, 0, 0, 0]
    assert 0.47 < stored.float().mean() < 0.53
    assert (shown <= later).all()  # none comes from the future
    held = pool.state()
    assert held is not None
    left = held[:, 0, 0, 0].tolist()
    every = sorted([*shown[:, 0, 0, 0].tolist(), *left])  # the first 50 were shown once already
    assert every == list(range(4050))


def test_a_pool_of_nothing_shows_what_comes() -> None:
    images = numbered(0, 9)
    shown = ImagePool(0).exchanged(images, torch.Generator().manual_seed(0))
    assert torch.equal(shown, images)
