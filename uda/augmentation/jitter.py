"""Photometric augmentation on the device: images change, labels do not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uda.augmentation.blur import gaussian_blur
from uda.augmentation.color_jitter import ColorJitterConfig, color_jitter
from uda.utilities.errors import InputError, require, require_share, shown

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, of red, green and blue


@dataclass(kw_only=True, slots=True)
class JitterConfig:
    """Limits of the random changes; 0 switches a change off."""

    brightness: float = 0.4  # factor 1 +- this
    contrast: float = 0.4  # factor 1 +- this of the distance from the image's mean luma
    saturation: float = 0.5  # factor 1 +- this of the distance from the pixel's luma
    channel_gain: float = 0.15  # factor 1 +- this of red, green and blue, separately
    gamma: float = 0.4  # exponent between e^-this and e^this
    blur_sigma: tuple[float, float] = (0.3, 1.2)  # pixels
    blur_probability: float = 0.5
    noise: float = 0.03  # highest standard deviation, of intensities 0..1
    noise_probability: float = 0.5

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        for name in ("brightness", "contrast", "saturation", "channel_gain", "blur_probability",
                     "noise", "noise_probability"):  # fmt: skip
            require_share(f"{path}.{name}", getattr(self, name))
        low, high = self.blur_sigma
        require(
            0 <= low <= high <= 100,
            f"{path}.blur_sigma is {self.blur_sigma}; allowed: low, high of 0 to 100",
        )
        require(0 <= self.gamma <= 10, f"{path}.gamma is {self.gamma}; allowed: 0 to 10")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Jitter:
    """Values sampled from a JitterConfig for one image."""

    brightness: float
    contrast: float
    saturation: float
    channel_gains: tuple[float, float, float]
    gamma: float
    blur_sigma: float  # 0: none
    noise: float  # 0: none
    noise_seed: int


AnyJitter = JitterConfig | ColorJitterConfig
_BY_NAME: dict[str, type[AnyJitter]] = {
    "jitter": JitterConfig,
    "color_jitter": ColorJitterConfig,
}


def jitter_named(name: str, default: object = None) -> AnyJitter:
    """The settings called `name` at their defaults; "default" is "jitter" where there is no other.

    Raises InputError, with the known names, when there are no such settings.
    """
    name = "jitter" if name.lower() == "default" else name
    require(name in _BY_NAME, f"{shown(name)} is no jitter; known: {', '.join(_BY_NAME)}, none")
    kind = _BY_NAME[name]
    return default if isinstance(default, kind) else kind()


@torch.no_grad()
def jitter(
    images: Tensor,
    config: AnyJitter,
    generators: Sequence[torch.Generator],
    batch_generator: torch.Generator | None = None,
) -> Tensor:
    """The images with colors, contrast, sharpness and noise changed at random, still in [0, 1].

    images: (N, 3, H, W) float RGB in [0, 1]; the result has their memory format.
    generators: one per sample, on the CPU. A sample's result depends on its own generator and
        pixels only, bit for bit, so samples are processed one by one.
    batch_generator: for what ColorJitterConfig.per_batch draws once, the same on all processes.
    Raises InputError when the images are not float, and ValueError without one generator each.
    """
    if not images.is_floating_point():
        raise InputError(f"jitter takes float images in [0, 1], not {images.dtype}: divide by 255")
    if isinstance(config, ColorJitterConfig):
        return color_jitter(images, config, generators, batch_generator)
    changed = torch.empty_like(images)
    for image, result, generator in zip(images, changed, generators, strict=True):
        result.copy_(_apply(_draw(config, generator), image.unsqueeze(0)).squeeze(0))
    return changed


def _draw(config: JitterConfig, generator: torch.Generator) -> _Jitter:
    # The same numbers are always sampled, so switching one change off does not affect the others.
    uniform = torch.rand(11, generator=generator, dtype=torch.float64).tolist()
    noise_seed = int(torch.randint(2**62, (), generator=generator))
    signed = [2 * number - 1 for number in uniform]
    low, high = config.blur_sigma
    red, green, blue = (1 + config.channel_gain * number for number in signed[3:6])
    return _Jitter(
        brightness=1 + config.brightness * signed[0],
        contrast=1 + config.contrast * signed[1],
        saturation=1 + config.saturation * signed[2],
        channel_gains=(red, green, blue),
        gamma=math.exp(config.gamma * signed[6]),
        blur_sigma=low + (high - low) * uniform[8] if uniform[7] < config.blur_probability else 0.0,
        noise=config.noise * uniform[10] if uniform[9] < config.noise_probability else 0.0,
        noise_seed=noise_seed,
    )


def _apply(draw: _Jitter, image: Tensor) -> Tensor:
    """The changed image (1, 3, H, W), in the order of a camera: light, color, optics, sensor."""
    image = image * draw.brightness
    mean = _luma(image).mean()
    image = torch.lerp(mean, image, draw.contrast)
    image = torch.lerp(_luma(image), image, draw.saturation)
    gains = torch.tensor(draw.channel_gains, dtype=image.dtype).view(1, 3, 1, 1)
    image = image * gains.to(image.device, non_blocking=True)
    image = image.clamp(0, 1).pow(draw.gamma)
    if draw.blur_sigma > 0:
        image = gaussian_blur(image, draw.blur_sigma)
    if draw.noise > 0:
        image = image + draw.noise * _noise_like(image, draw.noise_seed)
    return image.clamp(0, 1)


def _luma(image: Tensor) -> Tensor:
    """Luma (1, 1, H, W) of (1, 3, H, W) RGB."""
    red, green, blue = image.split(1, dim=1)
    return _LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue


def _noise_like(image: Tensor, seed: int) -> Tensor:
    """Standard normal noise, the same in every memory format, sampled on the image's device."""
    generator = torch.Generator(image.device).manual_seed(seed)
    return torch.randn(image.shape, generator=generator, device=image.device, dtype=image.dtype)
