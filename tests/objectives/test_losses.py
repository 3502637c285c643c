"""Losses against values worked out by hand, and against numpy where it has the same function."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from uda.labels.spaces import IGNORE_INDEX
from uda.objectives.functional.losses import (
    ClassBalance,
    cross_entropy,
    entropy,
    kl_to_reference,
    memory_regularization,
    rectified_cross_entropy,
)
from uda.utilities.errors import InputError

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
LOG_2, LOG_3 = math.log(2), math.log(3)


def two_pixels(*probabilities: tuple[float, ...]) -> torch.Tensor:
    """Logits (1, C, 1, P) whose softmax is `probabilities`, one tuple per pixel."""
    return torch.tensor(probabilities).log().T.reshape(1, -1, 1, len(probabilities))


def random_case(size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, size, size, generator=generator)
    labels = torch.randint(0, 5, (2, size, size), generator=generator)
    labels[:, :2] = IGNORE_INDEX
    return logits, labels


def learned(
    logits: torch.Tensor,
    labels: torch.Tensor,
    hardest: float,
    class_weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """The pixels (N, H, W) bool that the loss moves."""
    logits = logits.clone().requires_grad_()
    cross_entropy(logits, labels, class_weights=class_weights, hardest=hardest).backward()
    assert logits.grad is not None
    return logits.grad.ne(0).any(dim=1)


def test_cross_entropy_averages_over_labeled_pixels_only() -> None:
    logits = two_pixels((0.5, 0.25, 0.25), (1 / 3, 1 / 3, 1 / 3), (0.1, 0.1, 0.8))
    labels = torch.tensor([[[0, 2, IGNORE_INDEX]]])
    assert cross_entropy(logits, labels).item() == pytest.approx((LOG_2 + LOG_3) / 2)


def test_uniform_weights_scale_the_loss() -> None:
    logits, labels = random_case()
    plain = cross_entropy(logits, labels)
    assert cross_entropy(logits, labels, weights=torch.full((2, 1, 1), 0.25)).item() == (
        pytest.approx(plain.item() / 4)
    )
    assert plain.item() == pytest.approx(F.cross_entropy(logits, labels, ignore_index=255).item())


def test_weights_apply_to_their_own_pixel() -> None:
    logits = two_pixels((0.5, 0.5), (0.25, 0.75))
    labels = torch.tensor([[[0, 0]]])
    weights = torch.tensor([[[3.0, 0.5]]])
    expected = (3 * LOG_2 + 0.5 * 2 * LOG_2) / 2
    assert cross_entropy(logits, labels, weights=weights).item() == pytest.approx(expected)


def test_weights_with_a_channel_axis_are_refused() -> None:
    logits, labels = random_case()
    with pytest.raises(RuntimeError, match="expand"):
        cross_entropy(logits, labels, weights=torch.ones(2, 1, 12, 12))


def test_class_weights_give_the_weighted_mean() -> None:
    logits = two_pixels((0.5, 0.5), (2 / 3, 1 / 3), (0.9, 0.1))
    labels = torch.tensor([[[0, 1, IGNORE_INDEX]]])
    class_weights = torch.tensor([1.0, 7.0])
    loss = cross_entropy(logits, labels, class_weights=class_weights)
    assert loss.item() == pytest.approx((LOG_2 + 7 * LOG_3) / 8)
    halved = cross_entropy(
        logits, labels, class_weights=class_weights, weights=torch.full((1, 1, 1), 0.5)
    )
    assert halved.item() == pytest.approx(loss.item() / 2)


@pytest.mark.parametrize("class_weights", [None, torch.ones(5)])
def test_without_labels_the_loss_is_zero_and_has_a_graph(
    class_weights: torch.Tensor | None,
) -> None:
    logits = random_case()[0].requires_grad_()
    labels = torch.full((2, 12, 12), IGNORE_INDEX)
    loss = cross_entropy(logits, labels, class_weights=class_weights)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_half_precision_logits_are_summed_in_single_precision() -> None:
    logits = torch.zeros(1, 4, 100, 100, dtype=torch.bfloat16)
    loss = cross_entropy(logits, torch.zeros(1, 100, 100, dtype=torch.int64))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(4))


@pytest.mark.parametrize("hardest", [0.0, 0.2, 0.35, 1.0])
@pytest.mark.parametrize("device", DEVICES)
def test_hard_pixels_are_those_above_numpys_percentile(hardest: float, device: str) -> None:
    logits, labels = random_case()
    class_weights = torch.tensor([1.0, 7.0, 1.0, 49.0, 2.0])
    losses = class_weights[labels.clamp(max=4)] * F.cross_entropy(
        logits, labels.clamp(max=4), reduction="none"
    )
    losses[labels == IGNORE_INDEX] = 0
    limit = np.percentile(losses.numpy(), 100 * (1 - hardest), method="linear")
    expected = torch.where(losses < float(limit), IGNORE_INDEX, labels)

    kept = learned(
        logits.to(device), labels.to(device), hardest, class_weights=class_weights.to(device)
    )

    assert torch.equal(kept.cpu(), expected != IGNORE_INDEX)
    loss = cross_entropy(logits, labels, class_weights=class_weights, hardest=hardest)
    assert torch.equal(loss, cross_entropy(logits, expected, class_weights=class_weights))


def test_the_percentile_is_interpolated_between_two_losses() -> None:
    # Losses 1..6 nats. 80 % of the way is position 4.0: exactly 5. 70 % is 3.5: between 4 and 5.
    probabilities = [math.exp(-nats) for nats in (3, 1, 6, 2, 5, 4)]
    logits = two_pixels(*((p, 1 - p) for p in probabilities))
    labels = torch.zeros(1, 1, 6, dtype=torch.int64)
    assert learned(logits, labels, 0.3).int().tolist() == [[[0, 0, 1, 0, 1, 0]]]
    assert cross_entropy(logits, labels, hardest=0.3).item() == pytest.approx((5 + 6) / 2)
    assert learned(logits, labels, 0.5).int().tolist() == [[[0, 0, 1, 0, 1, 1]]]
    assert cross_entropy(logits, labels, hardest=0.5).item() == pytest.approx((4 + 5 + 6) / 3)


def test_ignored_pixels_count_as_losses_of_zero() -> None:
    logits = two_pixels(*[(0.5, 0.5)] * 9, (0.9, 0.1))
    labels = torch.full((1, 1, 10), IGNORE_INDEX)
    labels[0, 0, 8:] = 0
    # Losses: eight zeros, 0.69, 0.11. Half of the pixels are the hardest down to a loss of 0, so
    # nothing is filtered; 1 % leaves the hardest pixel.
    assert torch.equal(learned(logits, labels, 0.5), labels == 0)
    assert learned(logits, labels, 0.01).int().tolist() == [[[0] * 8 + [1, 0]]]


def test_hard_pixels_leave_labels_alone() -> None:
    logits, labels = random_case()
    before = labels.clone()
    cross_entropy(logits, labels, hardest=0.2)
    assert torch.equal(labels, before)


def test_hard_pixels_work_above_the_limit_of_torch_quantile() -> None:
    count = 2**24 + 2**10
    labels = torch.zeros(1, count // 1024, 1024, dtype=torch.int64)
    logits = torch.ones(1, 1, count // 1024, 1024)  # one class: every loss is 0, all are hardest
    assert cross_entropy(logits, labels, hardest=0.2).item() == 0


def test_a_share_outside_0_to_1_is_refused() -> None:
    with pytest.raises(InputError, match=r"hardest is 80; allowed: a fraction of the pixels"):
        cross_entropy(*random_case(), hardest=80)


@pytest.mark.parametrize("device", DEVICES)
def test_class_balance_by_hand(device: str) -> None:
    balance = ClassBalance(3, rare_below=2).to(device)
    # Two images: rare means fewer than 4 pixels. Class 0 has 5, class 1 has 2, class 2 none.
    labels = torch.tensor([[[0, 0, 0, 1]], [[0, 0, 1, IGNORE_INDEX]]], device=device)
    # Average of "7 if absent, else 1" from 1: 0.9 * 1 + 0.1 * 7 = 1.6, then 0.9 * 1.6 + 0.7 = 2.14.
    assert balance(labels).tolist() == pytest.approx([1, 7, 7 * 1.6])
    assert balance(labels).tolist() == pytest.approx([1, 7, 7 * 2.14])
    assert balance(torch.full_like(labels, 2)).tolist() == pytest.approx([11.2, 11.2, 2.026])


def test_class_balance_uses_the_logs_figures() -> None:
    labels = torch.zeros(1, 64, 128, dtype=torch.int64)
    labels[:, :32] = 1  # 4096 pixels each: just not rare
    assert ClassBalance(2)(labels).tolist() == [1, 1]
    labels[0, 0, 0] = 0  # 4097 and 4095
    assert ClassBalance(2)(labels).tolist() == [1, 7]


def test_class_balance_is_saved_and_restored() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    original, resumed = ClassBalance(2), ClassBalance(2)
    original(labels)
    resumed.load_state_dict(original.state_dict())
    assert resumed(labels).tolist() == original(labels).tolist() == pytest.approx([7, 7 * 2.14])


def test_memory_regularization_by_hand() -> None:
    main, auxiliary = torch.tensor([0.0, LOG_2]), torch.tensor([0.0, -2 * LOG_2])
    # softmax(main) = (1, 2) / 3, softmax(auxiliary) = (4, 1) / 5, and main + auxiliary / 2 = 0,
    # so q = (1, 1) / 2.
    expected = 0.5 * (math.log(3 / 2) + math.log(3 / 4) + math.log(5 / 8) + math.log(5 / 2))
    pixels = (1, 2, 2, 3)
    loss = memory_regularization(
        main.view(1, 2, 1, 1).expand(pixels), auxiliary.view(1, 2, 1, 1).expand(pixels)
    )
    assert loss.item() == pytest.approx(expected)


def test_memory_regularization_moves_both_heads_towards_a_fixed_reference() -> None:
    main = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(1)).requires_grad_()
    auxiliary = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    memory_regularization(main, auxiliary).backward()
    reference = torch.softmax(main + 0.5 * auxiliary, dim=1).detach()
    # With q constant, the gradient of KL(q || softmax(logits)) is softmax(logits) - q.
    for logits in (main, auxiliary):
        expected = (torch.softmax(logits, dim=1).detach() - reference) / 32
        torch.testing.assert_close(logits.grad, expected)


def test_memory_regularization_is_zero_where_the_heads_agree() -> None:
    certain = torch.tensor([0.0, 200.0]).view(1, 2, 1, 1)
    assert memory_regularization(certain, certain).item() == pytest.approx(0, abs=1e-7)


def test_kl_to_reference_by_hand() -> None:
    logits = two_pixels((0.5, 0.5), (0.25, 0.75))
    reference = torch.tensor([[0.5, 1.0], [0.5, 0.0]]).view(1, 2, 1, 2)
    # Nothing in the first pixel, log(1 / 0.25) in the second.
    assert kl_to_reference(logits, reference).item() == pytest.approx(2 * LOG_2 / 2)


def test_kl_to_reference_moves_the_logits_only() -> None:
    logits = random_case()[0].requires_grad_()
    reference = random_case()[0].flip(1).softmax(1).requires_grad_()
    kl_to_reference(logits, reference).backward()
    expected = (logits.softmax(1) - reference).detach() / (2 * 12 * 12)
    torch.testing.assert_close(logits.grad, expected)
    assert reference.grad is None


def test_entropy_by_hand() -> None:
    logits = two_pixels((0.5, 0.5), (0.25, 0.75))
    second = 0.25 * 2 * LOG_2 + 0.75 * (2 * LOG_2 - LOG_3)
    assert entropy(logits).item() == pytest.approx((LOG_2 + second) / 2)
    # Certainties: 2 * 0.25 and 0.0625 + 0.5625.
    expected = (0.5 * LOG_2 + 0.625 * second) / 2
    assert entropy(logits, certainty=True).item() == pytest.approx(expected)


def test_entropy_is_between_0_and_log_c_and_finite_where_it_is_sure() -> None:
    assert entropy(torch.zeros(1, 5, 2, 2)).item() == pytest.approx(math.log(5))
    sure = torch.tensor([0.0, 400.0]).view(1, 2, 1, 1).requires_grad_()
    value = entropy(sure, certainty=True)
    value.backward()
    assert value.item() == 0
    assert sure.grad is not None
    assert sure.grad.flatten().tolist() == [0, 0]


def test_entropy_takes_certainty_for_a_constant() -> None:
    logits = random_case()[0]
    plain, weighted = logits.clone().requires_grad_(), logits.clone().requires_grad_()
    entropy(plain).backward()
    entropy(weighted, certainty=True).backward()
    certainties = logits.softmax(1).square().sum(1, keepdim=True)
    assert plain.grad is not None
    torch.testing.assert_close(weighted.grad, certainties * plain.grad)


def test_rectified_cross_entropy_moves_both_heads() -> None:
    logits, labels = random_case()
    own, other = logits.clone().requires_grad_(), logits.flip(1).clone().requires_grad_()
    rectified_cross_entropy(own, labels, other_logits=other).backward()

    a, b = (tensor.detach().double().requires_grad_() for tensor in (own, other))
    p, q = a.softmax(1), b.softmax(1)
    disagreement = (q * (q / p).log()).sum(1)
    nll = -p.gather(1, labels.clamp(max=4).unsqueeze(1)).squeeze(1).log()
    nll = torch.where(labels == IGNORE_INDEX, 0, nll)
    (nll * (-disagreement).exp() + disagreement).mean().backward()
    for logits, expected in ((own, a), (other, b)):
        assert logits.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(logits.grad, expected.grad.float(), rtol=1e-4, atol=1e-7)


def test_rectified_cross_entropy_is_finite_where_a_head_is_sure() -> None:
    sure = torch.tensor([0.0, 400.0]).view(1, 2, 1, 1).requires_grad_()
    unsure = torch.zeros(1, 2, 1, 1, requires_grad=True)
    labels = torch.ones(1, 1, 1, dtype=torch.int64)
    for own, other in ((sure, unsure), (unsure, sure)):
        loss = rectified_cross_entropy(own, labels, other_logits=other)
        loss.backward()
        assert math.isfinite(loss.item())
    for logits in (sure, unsure):
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
