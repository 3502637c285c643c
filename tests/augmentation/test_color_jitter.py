"""Color jitter: hand values of kornia's formulas, torchvision's own, and who shares which draws."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from uda.augmentation.blur import gaussian_blur
from uda.augmentation.color_jitter import (
    ColorJitterConfig,
    brighter,
    color_jitter,
    kernel_size,
    multiplied,
    saturated,
    turned,
)
from uda.augmentation.jitter import JitterConfig, jitter, jitter_named
from uda.utilities.errors import InputError

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
OFF = ColorJitterConfig(probability=0, blur_probability=0)
PIXEL = torch.tensor([0.8, 0.4, 0.2]).view(1, 3, 1, 1)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def images(samples: int = 3) -> Tensor:
    return torch.rand(samples, 3, 24, 40, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize(
    ("change", "amount", "expected"),
    [
        (brighter, 0.1, (0.9, 0.5, 0.3)),
        (brighter, 0.3, (1, 0.7, 0.5)),
        (multiplied, 0.2, (0.96, 0.48, 0.24)),
        (saturated, -0.5, (0.8, 0.6, 0.5)),
        (turned, 0.1, (0.8, 0.76, 0.2)),
        (turned, -0.1, (0.8, 0.2, 0.36)),
        (turned, 1, (0.8, 0.4, 0.2)),
    ],
)  # fmt: skip
def test_kornia_by_hand(
    change: Callable[[Tensor, float], Tensor], amount: float, expected: tuple[float, ...]
) -> None:
    assert change(PIXEL, amount).flatten().tolist() == pytest.approx(expected, abs=1e-5)


def test_gray_has_no_hue_and_no_saturation() -> None:
    gray = torch.tensor([0.0, 0.3, 1.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)
    for change in (saturated, turned):
        torch.testing.assert_close(change(gray, 0.2), gray, rtol=0, atol=1e-6)


def test_the_order_of_channels_only_turns_the_sign_of_the_hue() -> None:
    """DACS jitters blue, green, red. As hues are drawn from both signs alike, so is the result."""
    plain = images()
    for change in (brighter, multiplied, saturated):
        torch.testing.assert_close(change(plain.flip(1), 0.2).flip(1), change(plain, 0.2))
    torch.testing.assert_close(turned(plain.flip(1), 0.2).flip(1), turned(plain, -0.2))


@pytest.mark.parametrize(
    ("side", "size"), [(512, 51), (1024, 103), (720, 71), (640, 63), (360, 35), (9, 1)]
)
def test_size_of_the_blur_kernel(side: int, size: int) -> None:
    assert kernel_size(side) == size


def test_blur_equals_torchvisions_with_the_whole_kernel() -> None:
    config = replace(OFF, blur_probability=1.0, blur_sigma=(1.1, 1.1))
    large = torch.rand(1, 3, 120, 200, generator=torch.Generator().manual_seed(1))
    blurred = jitter(large, config, generators(1), *generators(2))
    kernel = [kernel_size(200), kernel_size(120)]  # torchvision: across, then down
    torch.testing.assert_close(
        blurred, functional.gaussian_blur(large, kernel, [1.1, 1.1]), rtol=0, atol=1e-6
    )
    assert not torch.equal(gaussian_blur(large, 1.1), blurred), "the other one repeats the border"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("brightness", lambda i, more: functional.adjust_brightness(i, 1 + more)),
        ("contrast", lambda i, more: functional.adjust_contrast(i, 1 + more)),
        ("saturation", lambda i, more: functional.adjust_saturation(i, 1 + more)),
        ("hue", functional.adjust_hue),
    ],
)
def test_torchvision_is_torchvisions(name: str, change: Callable[[Tensor, float], Tensor]) -> None:
    limits = dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0.0) | {name: 0.3}
    config = replace(OFF, library="torchvision", probability=1.0, per_batch="nothing")
    for each, limit in limits.items():
        setattr(config, each, limit)
    plain = images(1)
    found = jitter(plain, config, generators(5))
    generator = torch.Generator().manual_seed(5)
    torch.rand(4, generator=generator, dtype=torch.float64)
    torch.randperm(4, generator=generator)
    amounts = torch.rand(4, generator=generator, dtype=torch.float64)
    amount = 0.3 * (2 * float(amounts[list(limits).index(name)]) - 1)
    # The other three change nothing but the last bits.
    torch.testing.assert_close(found, change(plain, amount), rtol=0, atol=1e-5)
    kornias = jitter(plain, replace(config, library="kornia"), generators(5))
    difference = float((kornias - found).abs().max())
    assert difference < 1e-4 if name == "hue" else difference > 0.005


def test_off_changes_no_bit_and_takes_as_many_numbers() -> None:
    plain, own, other = images(), generators(1, 2, 3), generators(1, 2, 3)
    assert torch.equal(jitter(plain, OFF, own, *generators(4)), plain)
    jitter(plain, ColorJitterConfig(), other, *generators(4))
    for left, right in zip(own, other, strict=True):
        assert torch.equal(left.get_state(), right.get_state())


@pytest.mark.parametrize("library", ["kornia", "torchvision"])
@pytest.mark.parametrize("device", DEVICES)
def test_range_and_layout(library: str, device: str) -> None:
    config = ColorJitterConfig(
        library=library, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5,  # type: ignore[arg-type]
        probability=1.0, blur_probability=1.0,
    )  # fmt: skip
    plain = images(6).to(device).contiguous(memory_format=torch.channels_last)
    before = plain.clone()
    changed = jitter(plain, config, generators(*range(6)), *generators(7))
    assert torch.equal(plain, before)
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert changed.min() >= -1e-6
    assert changed.max() <= 1 + 1e-6
    assert torch.isfinite(changed).all()


def draws(per_batch: str, seed: int) -> Tensor:
    """Which of 64 equal images a coin changed."""
    config = ColorJitterConfig(probability=0.5, blur_probability=0, per_batch=per_batch)  # type: ignore[arg-type]
    plain = images(1).expand(64, -1, -1, -1).contiguous()
    changed = jitter(plain, config, generators(*range(64)), *generators(seed))
    return (changed != plain).flatten(1).any(dim=1)


def test_coins_of_the_batch_and_of_an_image() -> None:
    kinds = {bool(draws("coins", seed).all()) for seed in range(8)}
    assert kinds == {True, False}
    for seed in range(8):
        assert draws("coins", seed).unique().numel() == 1, "one coin"
    assert 16 < draws("nothing", 0).sum() < 48
    assert torch.equal(draws("nothing", 0), draws("nothing", 1)), "the batch's is not used"


def test_order_and_sigma_of_the_batch() -> None:
    """MIC blurs both images alike; DAFormer does not."""
    plain = images(1).expand(2, -1, -1, -1).contiguous()
    for per_batch, alike in (("coins_order_sigma", True), ("coins", False)):
        config = replace(OFF, blur_probability=1.0, per_batch=per_batch)  # type: ignore[arg-type]
        first, second = jitter(plain, config, generators(1, 2), *generators(3))
        assert torch.equal(first, second) == alike
        config = replace(OFF, probability=1.0, per_batch=per_batch)  # type: ignore[arg-type]
        first, second = jitter(plain, config, generators(1, 2), *generators(3))
        assert not torch.equal(first, second), "factors are of the image"


def test_a_sample_does_not_see_its_neighbors() -> None:
    together = jitter(images(), ColorJitterConfig(), generators(20, 21, 22), *generators(1))
    for index, seed in enumerate((20, 21, 22)):
        one = images()[index : index + 1]
        alone = jitter(one, ColorJitterConfig(), generators(seed), *generators(1))
        assert torch.equal(alone[0], together[index])


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="per_batch is 'coins': pass a batch_generator"):
        color_jitter(images(1), ColorJitterConfig(), generators(1))
    with pytest.raises(InputError, match=r"x\.jitter\.hue is 0.6; allowed: 0 to 0.5 turns"):
        ColorJitterConfig(hue=0.6).check("x.jitter")
    with pytest.raises(InputError, match=r"x\.jitter\.blur_sigma is \(1.0, 0.5\)"):
        ColorJitterConfig(blur_sigma=(1.0, 0.5)).check("x.jitter")


def test_by_name() -> None:
    assert type(jitter_named("default")) is type(jitter_named("jitter")) is JitterConfig
    own = ColorJitterConfig(hue=0.1)
    assert jitter_named("color_jitter", own) is own
    assert jitter_named("color_jitter", JitterConfig()) == ColorJitterConfig()
    with pytest.raises(
        InputError, match=r"'colors' is no jitter; known: jitter, color_jitter, none"
    ):
        jitter_named("colors")
