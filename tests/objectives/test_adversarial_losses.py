"""Adversarial losses: both published conventions, worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from uda.models.discriminators import (
    AdversarialConvention,
    FullyConvolutionalDiscriminator,
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


def test_gradient_penalty_of_a_linear_discriminator() -> None:
    inputs = torch.rand(2, 3, 4, 5, requires_grad=True)
    weight = torch.tensor([1.0, -2.0, 0.5], requires_grad=True)
    full = (inputs * weight.view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    coarse = 3.0 * inputs[:, :1, ::2, ::2]  # 2 x 3 of the 4 x 5 pixels
    penalty = gradient_penalty([full, coarse], inputs)
    # Gradient: `weight` at each of 20 pixels; 3 at 6 values of the first channel. Equal images.
    assert penalty.item() == pytest.approx(20 * (1 + 4 + 0.25) + 6 * 9)
    (of_weight,) = torch.autograd.grad(penalty, weight)
    torch.testing.assert_close(of_weight, 2 * 20 * weight.detach())


def test_gradient_penalty_is_the_mean_over_images() -> None:
    inputs = torch.tensor([1.0, 3.0]).view(2, 1, 1, 1).requires_grad_()
    penalty = gradient_penalty([inputs.square()], inputs)  # gradient 2x: 4 and 36
    assert penalty.item() == pytest.approx((4 + 36) / 2)


def test_gradient_penalty_reaches_the_weights_and_leaves_the_graph_usable() -> None:
    torch.manual_seed(0)
    network = MultiScaleDiscriminator(4, width=2)
    source = torch.rand(2, 4, 40, 48).softmax(dim=1).requires_grad_()
    maps = network(source)
    penalty = gradient_penalty(maps, source)
    loss = tell_apart(maps, [m.detach() for m in maps], "least_squares", network.convention)
    (loss + 0.01 * penalty).backward()
    assert penalty.item() > 0
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    first = network.cnns[0][0].conv.weight  # type: ignore[index]
    assert torch.autograd.grad(gradient_penalty(network(source), source), first)[0].any()


def test_gradient_penalty_needs_inputs_with_gradients() -> None:
    inputs = torch.rand(1, 1, 2, 2)
    with pytest.raises(ValueError, match=r"after probabilities.detach\(\).requires_grad_\(\)"):
        gradient_penalty([inputs * 2], inputs)
