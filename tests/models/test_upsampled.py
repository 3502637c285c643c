"""Functions of upsampled logits, computed a few rows at a time, next to those of the whole map."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from uda.labels.spaces import IGNORE_INDEX
from uda.models import upsampled
from uda.models.upsampled import Upsampled, per_pixel
from uda.objectives.functional.adversarial import seen_by_discriminators
from uda.objectives.functional.hard_pixels import OhemConfig
from uda.objectives.functional.losses import (
    cross_entropy,
    entropy,
    kl_to_prediction,
    memory_regularization,
    rectified_cross_entropy,
)

IMAGES, CLASSES, SIZE = 2, 5, (13, 18)


@pytest.fixture(autouse=True, params=[3, 1000], ids=["three rows", "one strip"])
def _strips(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    values = request.param * IMAGES * CLASSES * SIZE[1]
    monkeypatch.setattr(upsampled, "_STRIP_VALUES", {"cpu": values})


def coarse(seed: int, size: tuple[int, int] = (4, 5)) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (4 * torch.randn(IMAGES, CLASSES, *size, generator=generator)).requires_grad_()


def labels() -> Tensor:
    found = torch.randint(0, CLASSES, (IMAGES, *SIZE), generator=torch.Generator().manual_seed(9))
    found[:, :2] = IGNORE_INDEX
    return found


def resized(logits: Tensor, *, align_corners: bool) -> Tensor:
    return F.interpolate(logits, SIZE, mode="bilinear", align_corners=align_corners)


def first_and_softmax(one: Tensor, other: Tensor) -> Tensor:
    return one.softmax(dim=1) * other[:, :1]


WEIGHTS = torch.tensor([0.5, 1.0, 2.0, 0.0, 7.0])
# Of one or two maps of logits.
LOSSES: dict[str, Callable[..., Tensor]] = {
    "cross-entropy": lambda one, _: cross_entropy(one, labels()),
    "of the hardest, by class": lambda one, _: cross_entropy(
        one, labels(), class_weights=WEIGHTS, hardest=0.3
    ),
    "over all, weighted": lambda one, _: cross_entropy(
        one, labels(), weights=torch.arange(2.0).view(2, 1, 1), over="all"
    ),
    "ohem": lambda one, _: cross_entropy(one, labels(), hardest=OhemConfig(at_least=20)),
    "nothing labeled": lambda one, _: cross_entropy(one, torch.full_like(labels(), IGNORE_INDEX)),
    "memory": memory_regularization,
    "divergence": kl_to_prediction,
    "rectified": lambda one, other: rectified_cross_entropy(
        one, labels(), other_logits=other, class_weights=WEIGHTS
    ),
    "entropy": lambda one, _: entropy(one, certainty=True, charbonnier=2.0),
    "softmax": lambda one, _: seen_by_discriminators(one, "softmax").square().mean(),
    "information": lambda one, _: seen_by_discriminators(one, "self_information")[:, 1].mean(),
    "sum": lambda one, _: per_pixel(lambda rows: rows.sum(dim=1), one).mean(),
    "channels": lambda one, other: per_pixel(first_and_softmax, one, other).square().mean(),
}


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(4, 5), (30, 40), (1, 1)])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_a_loss_and_its_gradients_are_those_of_the_whole_map(
    loss: Callable[..., Tensor], size: tuple[int, int], *, align_corners: bool
) -> None:
    one, other = coarse(0, size), coarse(1, (3, 6))
    maps = [Upsampled(each, SIZE, align_corners=align_corners) for each in (one, other)]
    found = loss(*maps)
    found.backward()
    ours = one.grad, other.grad
    one.grad = other.grad = None
    expected = loss(*(resized(each, align_corners=align_corners) for each in (one, other)))
    expected.backward()
    torch.testing.assert_close(found, expected)
    for mine, theirs in zip(ours, (one.grad, other.grad), strict=True):
        if mine is None or theirs is None:  # a map that the loss does not see
            assert all(each is None or not each.any() for each in (mine, theirs))
        else:
            torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_classes_are_those_of_the_whole_map() -> None:
    logits = Upsampled(coarse(0), SIZE)
    with torch.no_grad():
        found = per_pixel(lambda rows: rows.max(dim=1).indices, logits)
    assert found.dtype == torch.int64
    assert torch.equal(found, logits.whole().argmax(dim=1))


def test_gradients_flow_through_the_whole_map_whoever_asks_first() -> None:
    logits = Upsampled(coarse(0), SIZE)
    with torch.no_grad():
        logits.whole()
    logits.whole().sum().backward()
    assert logits.coarse.grad is not None
    # The weights of a bilinear resize sum to 1 for each of 13 x 18 pixels.
    assert logits.coarse.grad.sum().item() == pytest.approx(IMAGES * CLASSES * 13 * 18)


def test_logits_at_their_own_size_are_as_they_are() -> None:
    tensor = coarse(0, SIZE)
    assert Upsampled(tensor, None).whole() is tensor
    assert torch.equal(per_pixel(torch.exp, Upsampled(tensor, None)), tensor.exp())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_logits_of_low_precision_are_upsampled_in_float32(dtype: torch.dtype) -> None:
    low = coarse(0).detach().to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(Upsampled(low, SIZE), labels())
    loss.backward()
    expected = cross_entropy(resized(low.detach().float(), align_corners=False), labels())
    torch.testing.assert_close(loss, expected)
    assert low.grad is not None
    assert low.grad.dtype == dtype


class Largest(TorchDispatchMode):
    """The most numbers of a floating-point tensor that any operation returns."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, tuple | list) else (made,):
            if isinstance(each, Tensor) and each.is_floating_point():
                self.numbers = max(self.numbers, each.numel())
        return made


@pytest.mark.parametrize("name", ["of the hardest, by class", "memory", "rectified", "entropy"])
def test_no_map_of_all_classes_is_whole_in_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upsampled, "_STRIP_VALUES", {"cpu": IMAGES * CLASSES * SIZE[1]})
    with Largest() as largest:
        LOSSES[name](*(Upsampled(coarse(seed), SIZE) for seed in (0, 1))).backward()
    whole = IMAGES * CLASSES * SIZE[0] * SIZE[1]
    assert 0 < largest.numbers <= whole // 3  # 4 of 13 rows are as wide
