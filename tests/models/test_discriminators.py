"""Discriminators: sizes, initialization and names against the files they must read."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from uda.models.discriminators import (
    Discriminator,
    FullyConvolutionalDiscriminator,
    MultiScaleDiscriminator,
)
from uda.objectives.functional.adversarial import fool
from uda.utilities.errors import InputError

CHECKPOINTS = Path(__file__).parents[1] / "data" / "checkpoints"


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("network", "file"),
    [
        (FullyConvolutionalDiscriminator(19), "adaptsegnet_fc_discriminator.json"),
        (MultiScaleDiscriminator(19), "seg_uncertainty_multi_scale_discriminator.json"),
    ],
)
def test_names_and_shapes_are_those_of_the_published_files(
    network: Discriminator, file: str
) -> None:
    published = json.loads((CHECKPOINTS / file).read_text())["keys"]
    ours = {name: list(tensor.shape) for name, tensor in network.state_dict().items()}
    assert ours == {name: shape for name, (shape, _dtype) in published.items()}


@pytest.mark.parametrize(
    ("network", "sizes"),
    [
        (FullyConvolutionalDiscriminator(19), [(11, 20)]),
        (MultiScaleDiscriminator(19), [(45, 80), (23, 40), (12, 20)]),
    ],
)
def test_map_sizes_at_640x360(network: Discriminator, sizes: list[tuple[int, int]]) -> None:
    with torch.no_grad():
        maps = network(torch.rand(1, 19, 360, 640).softmax(dim=1))
    assert [tuple(scores.shape) for scores in maps] == [(1, 1, *size) for size in sizes]


def test_map_sizes_at_odd_sizes() -> None:
    probabilities = torch.rand(2, 4, 65, 97).softmax(dim=1)
    (scores,) = FullyConvolutionalDiscriminator(4, width=2)(probabilities)
    assert scores.shape == (2, 1, 2, 3)
    maps = MultiScaleDiscriminator(4, width=2)(probabilities)
    assert [tuple(s.shape[-2:]) for s in maps] == [(9, 13), (5, 7), (3, 4)]


def test_parameter_counts() -> None:
    fully_convolutional = 19_520 + 131_200 + 524_544 + 2_097_664 + 8_193  # layer by layer
    assert parameters(FullyConvolutionalDiscriminator(19)) == fully_convolutional
    multi_scale = MultiScaleDiscriminator(19)
    per_net = 5_504 + 3 * 9_248 + 18_496 + 8 * 36_928 + 65  # 0.35 M
    assert [parameters(cnn) for cnn in multi_scale.cnns] == [per_net] * 3
    assert parameters(multi_scale) == 3 * per_net == 1_041_699


def test_width_scales_every_hidden_layer() -> None:
    fully_convolutional = FullyConvolutionalDiscriminator(19, width=8)
    assert fully_convolutional.conv4.weight.shape == (64, 32, 4, 4)
    state = MultiScaleDiscriminator(19, width=8).state_dict()
    assert state["cnns.2.9.weight"].shape == (1, 16, 1, 1)


def test_multi_scale_weights_are_drawn_small_and_biases_zero() -> None:
    for name, parameter in MultiScaleDiscriminator(19).named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif parameter.numel() > 1000:
            assert parameter.mean().item() == pytest.approx(0, abs=0.002), name
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name


def test_a_new_multi_scale_discriminator_is_fooled_at_a_price_of_six() -> None:
    network = MultiScaleDiscriminator(19)
    maps = network(torch.rand(1, 19, 96, 160).softmax(dim=1))
    # Scores near 0, source label 1: three scales of 2 * (0 - 1)^2.
    assert fool(maps, "least_squares", network.convention).item() == pytest.approx(6, abs=0.05)


def test_fully_convolutional_weights_keep_pytorchs_initialization() -> None:
    torch.manual_seed(7)
    expected = nn.Conv2d(19, 64, kernel_size=4, stride=2, padding=1)
    torch.manual_seed(7)
    network = FullyConvolutionalDiscriminator(19)
    assert torch.equal(network.conv1.weight, expected.weight)
    assert torch.equal(network.conv1.bias, expected.bias)  # type: ignore[arg-type]


def test_pooled_probabilities_still_sum_to_one_at_the_border() -> None:
    network = MultiScaleDiscriminator(5, width=2)
    pooled = network.pool(network.pool(torch.rand(1, 5, 13, 9).softmax(dim=1)))
    torch.testing.assert_close(pooled.sum(dim=1), torch.ones(1, 4, 3))


def test_only_the_first_convolution_of_a_residual_block_is_activated() -> None:
    network = MultiScaleDiscriminator(3, width=2)
    block = network.get_submodule("cnns.0.5")
    first = network.get_submodule("cnns.0.5.model.0")
    for parameter in block.parameters():
        nn.init.zeros_(parameter)
    network.get_parameter("cnns.0.5.model.0.conv.bias").data.fill_(-1.0)
    network.get_parameter("cnns.0.5.model.1.conv.bias").data.fill_(-3.0)
    inputs = torch.tensor([-1.0, 2.0, 0.0, -3.0]).view(1, 4, 1, 1)
    torch.testing.assert_close(first(inputs), torch.full_like(inputs, -0.2))
    torch.testing.assert_close(block(inputs), inputs - 3.0)


def test_scale_s_sees_the_image_pooled_s_times() -> None:
    network = MultiScaleDiscriminator(3, width=2)
    probabilities = torch.rand(1, 3, 32, 32)
    half = network.pool(probabilities)
    maps = network(probabilities)
    torch.testing.assert_close(maps[1], network.cnns[1](half))
    torch.testing.assert_close(maps[2], network.cnns[2](network.pool(half)))


def test_small_crops_are_refused_where_no_map_is_left() -> None:
    with pytest.raises(InputError, match="stride 32 and got 31x64 pixels"):
        FullyConvolutionalDiscriminator(3, width=2)(torch.rand(1, 3, 31, 64))
    (scores,) = FullyConvolutionalDiscriminator(3, width=2)(torch.rand(1, 3, 32, 32))
    assert scores.shape == (1, 1, 1, 1)
