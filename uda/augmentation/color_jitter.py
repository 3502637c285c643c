"""Color jitter and blur as the authors of DACS, DAFormer, MIC and VFM-UDA ran them.

Two libraries mean different things by the same numbers. kornia 0.5.8: brightness is added, contrast
is a plain factor, saturation and hue are those of HSV. torchvision: brightness is a factor,
contrast and saturation move away from the gray image.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional

from uda.augmentation.blur import gaussian_blur
from uda.utilities.errors import require, require_share


@dataclass(kw_only=True, slots=True)
class ColorJitterConfig:
    """Limits of the random changes: in any order the first four, then gray, then blur."""

    library: Literal["kornia", "torchvision"] = "kornia"  # whose formulas
    brightness: float = 0.2  # kornia: +- this; torchvision: factor 1 +- this
    contrast: float = 0.2  # factor 1 +- this; torchvision: of the distance from the mean luma
    saturation: float = 0.2  # factor 1 +- this; torchvision: of the distance from the luma
    hue: float = 0.2  # turns +- this of the color circle
    probability: float = 0.8  # of these four
    gray_probability: float = 0.0
    blur_probability: float = 0.5
    # Pixels; the kernel is an odd number of pixels, a tenth of the image's side.
    blur_sigma: tuple[float, float] = (0.15, 1.15)
    # Drawn once for the whole batch: whether there is jitter and blur (DACS, DAFormer, HRDA), these
    # and the order and sigma, too (MIC's masked view), or nothing (VFM-UDA).
    per_batch: Literal["coins", "coins_order_sigma", "nothing"] = "coins"

    def idle(self) -> dict[str, str]:
        """The fields that change nothing, each with the reason."""
        found = {} if self.blur_probability else {"blur_sigma": "blur_probability is 0"}
        if self.probability == 0:
            names = ("brightness", "contrast", "saturation", "hue")
            found |= dict.fromkeys(names, "probability is 0")
            if self.gray_probability == 0:
                found["library"] = "probability is 0"
            if not any((self.gray_probability, self.blur_probability)):
                found["per_batch"] = "nothing is drawn"
        return found

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        for name in ("brightness", "contrast", "saturation", "probability", "gray_probability",
                     "blur_probability"):  # fmt: skip
            require_share(f"{path}.{name}", getattr(self, name))
        require(0 <= self.hue <= 0.5, f"{path}.hue is {self.hue}; allowed: 0 to 0.5 turns")
        low, high = self.blur_sigma
        require(
            0 <= low <= high <= 100,
            f"{path}.blur_sigma is {self.blur_sigma}; allowed: low, high of 0 to 100",
        )


class _Coins(NamedTuple):
    """Numbers in 0 to 1 that decide whether, and how much, and the order of the four changes."""

    jitter: float
    gray: float
    blur: float
    sigma: float
    order: list[int]


def color_jitter(
    images: Tensor,
    config: ColorJitterConfig,
    generators: Sequence[torch.Generator],
    batch_generator: torch.Generator | None = None,
) -> Tensor:
    """As `uda.augmentation.jitter.jitter`, which checks the images.

    Raises ValueError when `config.per_batch` asks for a batch_generator and there is none.
    """
    common = None
    if config.per_batch != "nothing":
        if batch_generator is None:
            raise ValueError(f"per_batch is {config.per_batch!r}: pass a batch_generator")
        common = _coins(batch_generator)
    changed = torch.empty_like(images)
    for image, result, generator in zip(images, changed, generators, strict=True):
        coins = _coins(generator)
        if common is not None:
            coins = coins._replace(jitter=common.jitter, gray=common.gray, blur=common.blur)
        if common is not None and config.per_batch == "coins_order_sigma":
            coins = common
        amounts = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
        signed = [2 * amount - 1 for amount in amounts]
        result.copy_(_changed(image.unsqueeze(0), config, coins, signed).squeeze(0))
    return changed


def _coins(generator: torch.Generator) -> _Coins:
    # The same numbers are always drawn, so switching one change off does not affect the others.
    jitter, gray, blur, sigma = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    order = torch.randperm(4, generator=generator).tolist()
    return _Coins(jitter, gray, blur, sigma, order)


def _changed(
    image: Tensor, config: ColorJitterConfig, coins: _Coins, amounts: Sequence[float]
) -> Tensor:
    """The changed image (1, 3, H, W), by amounts between -1 and 1 of the limits."""
    limits = (config.brightness, config.contrast, config.saturation, config.hue)
    if coins.jitter < config.probability:
        for place in coins.order:
            change = _CHANGES[config.library][place]
            image = change(image, limits[place] * amounts[place])
    if coins.gray < config.gray_probability:
        image = functional.rgb_to_grayscale(image, num_output_channels=3)
    low, high = config.blur_sigma
    sigma = low + (high - low) * coins.sigma
    if coins.blur < config.blur_probability and sigma > 0:
        image = gaussian_blur(image, sigma, radii=_radii(image, sigma), border="reflect")
    return image


def _radii(image: Tensor, sigma: float) -> tuple[int, int]:
    """Of the kernel, down and across. Beyond 7 sigma a tap of float32 adds nothing."""
    enough = math.ceil(7 * sigma)
    down, across = (min(kernel_size(side) // 2, enough) for side in image.shape[-2:])
    return down, across


def kernel_size(side: int) -> int:
    """The odd number at or just below a tenth of an image's side, rounded up: of 512 pixels, 51."""
    tenth = -(-side // 10)
    return tenth - (tenth % 2 == 0)


# --- kornia 0.5.8, images in [0, 1]


def brighter(image: Tensor, added: float) -> Tensor:
    return (image + added).clamp(0, 1)


def multiplied(image: Tensor, more: float) -> Tensor:
    return (image * (1 + more)).clamp(0, 1)


def saturated(image: Tensor, more: float) -> Tensor:
    hue, saturation, value = _hsv(image)
    return _rgb(hue, (saturation * (1 + more)).clamp(0, 1), value)


def turned(image: Tensor, turns: float) -> Tensor:
    hue, saturation, value = _hsv(image)
    return _rgb(hue + 6 * turns, saturation, value)


def _hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue in sixths of a turn, saturation and value, each (1, 1, H, W)."""
    red, green, blue = image.split(1, dim=1)
    value, least = image.amax(dim=1, keepdim=True), image.amin(dim=1, keepdim=True)
    spread = value - least
    sixth = torch.where(spread > 0, spread, 1)
    hue = torch.where(
        value == red,
        (green - blue) / sixth,
        torch.where(value == green, 2 + (blue - red) / sixth, 4 + (red - green) / sixth),
    )
    return hue, spread / (value + 1e-6), value


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    shares = []
    for start in (5, 3, 1):  # red, green, blue
        place = (hue + start).remainder(6)
        shares.append(torch.minimum(place, 4 - place).clamp(0, 1))
    return value - value * saturation * torch.cat(shares, dim=1)


def _of_torchvision(change: Callable[[Tensor, float], Tensor]) -> Callable[[Tensor, float], Tensor]:
    return lambda image, more: change(image, 1 + more)


# Brightness, contrast, saturation and hue.
_CHANGES: dict[str, tuple[Callable[[Tensor, float], Tensor], ...]] = {
    "kornia": (brighter, multiplied, saturated, turned),
    "torchvision": (
        _of_torchvision(functional.adjust_brightness),
        _of_torchvision(functional.adjust_contrast),
        _of_torchvision(functional.adjust_saturation),
        functional.adjust_hue,
    ),
}
