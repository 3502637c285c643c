"""Adversarial losses: both published conventions, worked by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from uda.models.discriminators import (
    AdversarialConvention,
    Discriminator,
    FullyConvolutionalDiscriminator,
    Layers,
    MultiScaleDiscriminator,
)
from uda.objectives.functional.adversarial import (
    AdversarialKind,
    fool,
    gradient_penalty,
    tell_apart,
)
from uda.utilities.errors import InputError

ADAPTSEGNET = FullyConvolutionalDiscriminator.convention
MRNET = MultiScaleDiscriminator.convention


def scores(*values: float) -> Tensor:
    """One map of one image, one value per pixel."""
    return torch.tensor(values).view(1, 1, 1, -1)


def softplus(value: float) -> float:
    """-log of the probability of label 0 at the logit `value`."""
    return math.log1p(math.exp(value))


def test_adaptsegnet_vanilla() -> None:
    source, target = [scores(-1.0, 0.5)], [scores(2.0, -0.5)]
    as_source = (softplus(2.0) + softplus(-0.5)) / 2  # label 0: the network wants to look like it
    assert fool(target, "vanilla", ADAPTSEGNET).item() == pytest.approx(as_source)
    source_term = (softplus(-1.0) + softplus(0.5)) / 2  # label 0
    target_term = (softplus(-2.0) + softplus(0.5)) / 2  # label 1
    expected = 0.5 * source_term + 0.5 * target_term
    assert tell_apart(source, target, "vanilla", ADAPTSEGNET).item() == pytest.approx(expected)


def test_adaptsegnet_least_squares() -> None:
    source, target = [scores(0.5, -1.0)], [scores(2.0, 0.0)]
    assert fool(target, "least_squares", ADAPTSEGNET).item() == pytest.approx((4 + 0) / 2)
    # Source to 0: (0.25 + 1) / 2; target to 1: (1 + 1) / 2; half of each.
    expected = 0.5 * 0.625 + 0.5 * 1.0
    loss = tell_apart(source, target, "least_squares", ADAPTSEGNET)
    assert loss.item() == pytest.approx(expected)


def test_mrnet_least_squares_over_scales() -> None:
    source = [scores(1.0, 3.0), scores(0.0)]
    target = [scores(0.0, 2.0), scores(3.0)]
    # Scale means of (D - 1)^2 on the target: (1 + 1) / 2 and 4, twice each.
    assert fool(target, "least_squares", MRNET).item() == pytest.approx(2 * 1 + 2 * 4)
    # Target to 0: (0 + 4) / 2 and 9; source to 1: (0 + 4) / 2 and 1.
    loss = tell_apart(source, target, "least_squares", MRNET)
    assert loss.item() == pytest.approx((2 + 9) + (2 + 1))


def test_undecided_scores_cost_log_two_each() -> None:
    undecided = [torch.zeros(2, 1, 3, 4)]
    assert fool(undecided, "vanilla", ADAPTSEGNET).item() == pytest.approx(math.log(2))
    loss = tell_apart(undecided, undecided, "vanilla", ADAPTSEGNET)
    assert loss.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("convention", [ADAPTSEGNET, MRNET])
@pytest.mark.parametrize("kind", ["vanilla", "least_squares"])
def test_the_two_sides_pull_target_scores_apart(
    kind: AdversarialKind, convention: AdversarialConvention
) -> None:
    target = scores(0.5).requires_grad_()
    (fooled,) = torch.autograd.grad(fool([target], kind, convention), target)
    told = tell_apart([scores(0.5)], [target], kind, convention)
    (caught,) = torch.autograd.grad(told, target)
    assert fooled.sign() == -caught.sign()
    assert fooled.item() != 0


def test_losses_are_float32_for_bfloat16_scores() -> None:
    low = [scores(0.5).bfloat16()]
    assert fool(low, "vanilla", ADAPTSEGNET).dtype == torch.float32
    assert tell_apart(low, low, "least_squares", MRNET).dtype == torch.float32


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="'wgan'; allowed: vanilla, least_squares"):
        fool([scores(0.0)], "wgan", ADAPTSEGNET)  # type: ignore[arg-type]


class Linear(Discriminator):
    """The sum of weighted channels; and, of a quarter of the pixels, three times the first."""

    convention = MRNET
    scales = 2

    def __init__(self, *weights: float) -> None:
        super().__init__()
        self.full = nn.Conv2d(len(weights), 1, 1)
        self.full.weight.data = torch.tensor(weights).view(1, -1, 1, 1)
        self.coarse = nn.Conv2d(len(weights), 1, 1)
        self.coarse.weight.data = torch.tensor([3.0, *[0.0] * (len(weights) - 1)]).view(1, -1, 1, 1)

    def reduce(self, probabilities: Tensor) -> Tensor:
        return probabilities[..., ::2, ::2]

    def apply_layers(self, scale: int, inputs: Tensor, layers: Layers) -> Tensor:
        return layers.convolve((self.full, self.coarse)[scale], inputs)


def test_gradient_penalty_of_a_linear_discriminator() -> None:
    network = Linear(1.0, -2.0, 0.5)
    inputs = torch.rand(2, 3, 4, 5, requires_grad=True)
    penalty = gradient_penalty(network, network.score(inputs), inputs)
    # Gradient: `weights` at each of 20 pixels; 3 at 6 values of the first channel. Equal images.
    assert penalty.item() == pytest.approx(20 * (1 + 4 + 0.25) + 6 * 9)
    penalty.backward()
    found = network.full.weight.grad
    assert found is not None
    torch.testing.assert_close(found, 2 * 20 * network.full.weight.detach())


def penalty_by_its_definition(maps: list[Tensor], inputs: Tensor) -> Tensor:
    total = torch.zeros(())
    for scores in maps:
        (gradient,) = torch.autograd.grad(scores.sum(), inputs, create_graph=True)
        total = total + gradient.square().sum(dim=(1, 2, 3)).mean()
    return total


@pytest.mark.parametrize("scale", [1.0, 1e-6, 0.0])
@pytest.mark.parametrize("kind", [MultiScaleDiscriminator, FullyConvolutionalDiscriminator])
def test_gradient_penalty_and_its_gradient_are_those_of_the_definition(
    kind: type[MultiScaleDiscriminator | FullyConvolutionalDiscriminator], scale: float
) -> None:
    """The gradient of a gradient, which is computed in another way."""
    torch.manual_seed(0)
    network = kind(4, width=2).double()
    last = list(network.parameters())[-2]
    last.data *= scale
    source = torch.rand(3, 4, 40, 48, dtype=torch.float64).softmax(dim=1).requires_grad_()
    scores = network.score(source)
    found = gradient_penalty(network, scores, source)
    expected = penalty_by_its_definition(network(source), source)
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)
    weights = [p for n, p in network.named_parameters() if "weight" in n]
    of_found = torch.autograd.grad(found, weights, retain_graph=True)
    for one, other in zip(of_found, torch.autograd.grad(expected, weights), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9 * scale)
    # Biases move no slope; and what the scores were computed by can still be learned from.
    tell_apart(scores.maps, scores.maps, "least_squares", network.convention).backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_gradient_penalty_of_low_precision(dtype: torch.dtype) -> None:
    """In 16 bits it is as close to the definition as that is to itself with other rounding."""
    torch.manual_seed(0)
    network = MultiScaleDiscriminator(4, width=8)
    for parameter in network.parameters():
        parameter.data *= 4  # float16 has no room for the slopes of a new network, 1e-7
    source = torch.rand(1, 4, 40, 48).softmax(dim=1).requires_grad_()
    weights = [p for n, p in network.named_parameters() if "weight" in n]
    with torch.autocast("cpu", dtype):
        expected = penalty_by_its_definition(network(source), source)
        found = gradient_penalty(network, network.score(source), source)
    assert found.item() == pytest.approx(expected.item(), rel=0.01)
    wanted = torch.autograd.grad(4096 * expected, weights)  # as a run scales its losses
    for one, other in zip(torch.autograd.grad(4096 * found, weights), wanted, strict=True):
        assert (one - other).norm() < 0.05 * other.norm()


def test_gradient_penalty_needs_inputs_with_gradients() -> None:
    network, inputs = Linear(2.0), torch.rand(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"after probabilities.detach\(\).requires_grad_\(\)"):
        gradient_penalty(network, network.score(inputs), inputs)
