"""Jitter: range, independence of samples, and each change by hand."""

import math
from dataclasses import replace

import pytest
import torch

from uda.augmentation.blur import gaussian_blur
from uda.augmentation.jitter import JitterConfig, jitter
from uda.utilities.errors import InputError

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
OFF = JitterConfig(
    brightness=0,
    contrast=0,
    saturation=0,
    channel_gain=0,
    gamma=0,
    blur_probability=0,
    noise_probability=0,
)
ALWAYS = JitterConfig(blur_probability=1, noise_probability=1)


def generators(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def random_images(samples: int = 2) -> torch.Tensor:
    return torch.rand(samples, 3, 12, 20, generator=torch.Generator().manual_seed(9))


@pytest.mark.parametrize("device", DEVICES)
def test_result_has_the_shape_range_and_place_of_the_images(device: str) -> None:
    images = random_images(8).to(device)
    before = images.clone()
    changed = jitter(images, ALWAYS, generators(*range(8)))
    assert torch.equal(images, before)
    assert changed.shape == images.shape
    assert changed.dtype == images.dtype
    assert changed.device == images.device
    assert changed.min() >= 0
    assert changed.max() <= 1
    assert all(not torch.equal(*pair) for pair in zip(images, changed, strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("device", DEVICES)
def test_a_sample_does_not_see_its_neighbors(layout: torch.memory_format, device: str) -> None:
    images = random_images(3).to(device).contiguous(memory_format=layout)
    together = jitter(images, ALWAYS, generators(20, 21, 22))
    for index, seed in enumerate((20, 21, 22)):
        alone = jitter(images[index : index + 1], ALWAYS, generators(seed))
        assert torch.equal(alone[0], together[index])


def test_memory_format_is_kept_and_changes_no_value() -> None:
    images = random_images()
    plain = jitter(images, ALWAYS, generators(1, 2))
    channels_last = images.contiguous(memory_format=torch.channels_last)
    changed = jitter(channels_last, ALWAYS, generators(1, 2))
    assert plain.is_contiguous()
    assert changed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(plain, changed)


def test_samples_draw_different_changes() -> None:
    images = random_images(1).expand(2, -1, -1, -1)
    first, second = jitter(images, ALWAYS, generators(1, 2))
    assert not torch.allclose(first, second, atol=0.01)


def test_everything_off_is_the_identity() -> None:
    images = random_images()
    assert torch.equal(jitter(images, OFF, generators(0, 1)), images)


@pytest.mark.parametrize(
    "one", [replace(OFF, brightness=0.3), replace(OFF, gamma=0.3), replace(OFF, channel_gain=0.3)]
)
def test_switching_another_change_on_keeps_the_draw(one: JitterConfig) -> None:
    images = torch.full((1, 3, 4, 4), 0.4)
    expected = jitter(images, one, generators(5))
    assert not torch.allclose(expected, images, atol=1e-3)
    more = replace(one, contrast=0.4, saturation=0.5)  # neither shows on a uniform gray
    torch.testing.assert_close(jitter(images, more, generators(5)), expected)


def test_brightness_is_a_factor_within_its_limits() -> None:
    images = torch.full((400, 3, 2, 2), 0.5)
    factors = (
        jitter(images, replace(OFF, brightness=0.4), generators(*range(400)))[:, 0, 0, 0] / 0.5
    )
    assert 0.6 <= factors.min().item() < 0.62
    assert 1.38 < factors.max().item() <= 1.4


def test_gamma_is_an_exponent_within_its_limits() -> None:
    images = torch.full((400, 3, 2, 2), 0.5)
    results = jitter(images, replace(OFF, gamma=0.4), generators(*range(400)))[:, 0, 0, 0]
    exponents = results.log2().neg()  # 0.5 ** exponent
    assert math.exp(-0.4) <= exponents.min().item() + 1e-6 < math.exp(-0.37)
    assert math.exp(0.37) < exponents.max().item() <= math.exp(0.4) + 1e-6


def test_contrast_keeps_the_mean_luma_and_saturation_each_pixels_luma() -> None:
    luma = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    images = 0.4 + 0.2 * random_images(1)  # far enough from 0 and 1 that nothing is cut off
    contrast = jitter(images, replace(OFF, contrast=0.5), generators(3))
    assert (luma * contrast[0]).sum(0).mean().item() == pytest.approx(
        (luma * images[0]).sum(0).mean().item(), abs=1e-5
    )
    assert contrast.std().item() != pytest.approx(images.std().item(), rel=0.01)
    saturation = jitter(images, replace(OFF, saturation=0.5), generators(3))
    torch.testing.assert_close((luma * saturation[0]).sum(0), (luma * images[0]).sum(0))
    assert not torch.allclose(saturation, images, atol=1e-3)


@pytest.mark.parametrize("device", DEVICES)
def test_blur_of_a_point_is_the_gaussian(device: str) -> None:
    image = torch.zeros(1, 3, 9, 9, device=device)
    image[0, 1, 4, 4] = 1
    blurred = gaussian_blur(image, 0.8).cpu()
    ratio = math.exp(-1 / (2 * 0.8**2))  # of a neighbor to the center
    center = blurred[0, 1, 4, 4].item()
    assert blurred[0, 1, 4, 5].item() == pytest.approx(center * ratio)
    assert blurred[0, 1, 3, 5].item() == pytest.approx(center * ratio**2)
    assert blurred[0, 1].sum().item() == pytest.approx(1)
    assert not blurred[0, [0, 2]].any()


def test_blur_leaves_a_uniform_image_alone_up_to_its_border() -> None:
    image = torch.full((1, 3, 3, 2), 0.7)
    torch.testing.assert_close(gaussian_blur(image, 1.2), image)


def test_blur_is_not_done_in_half_precision_under_autocast() -> None:
    images = random_images(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = gaussian_blur(images, 1.0)
    assert torch.equal(inside, gaussian_blur(images, 1.0))


@pytest.mark.parametrize("device", DEVICES)
def test_noise_stays_below_its_upper_end(device: str) -> None:
    images = torch.full((60, 3, 32, 32), 0.5, device=device)
    config = replace(OFF, noise=0.03, noise_probability=1)
    deviations = jitter(images, config, generators(*range(60))).std(dim=(1, 2, 3))
    assert deviations.min().item() < 0.005
    assert 0.025 < deviations.max().item() < 0.032


def test_probabilities_are_of_samples() -> None:
    images = torch.full((400, 3, 2, 2), 0.5)
    config = replace(OFF, noise=0.03, noise_probability=0.5)
    changed = (jitter(images, config, generators(*range(400))) != 0.5).flatten(1).any(dim=1)
    assert changed.float().mean().item() == pytest.approx(0.5, abs=0.1)  # four standard errors


def test_integer_images_are_refused() -> None:
    with pytest.raises(InputError, match="uint8: divide by 255"):
        jitter(torch.zeros(1, 3, 4, 4, dtype=torch.uint8), OFF, generators(0))


def test_one_generator_per_sample_is_required() -> None:
    with pytest.raises(ValueError, match="shorter"):
        jitter(random_images(2), OFF, generators(0))
