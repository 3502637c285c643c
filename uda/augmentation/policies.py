"""Photometric augmentation policies by name: colors and tones change, every pixel stays in place.

So labels need no change, and a view is aligned with its original pixel by pixel.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from uda.augmentation.clahe import Levels, equalize_lightness
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError

_BRIGHTNESS = 32.0  # gray levels added at most
_CONTRAST = (0.5, 1.5)  # factor of every level, so dark ones change least
_SATURATION = (0.5, 1.5)  # factor
_HUE = 18  # of the 180 steps that OpenCV divides the circle into


def photometric_distortion(image: Tensor, generator: torch.Generator) -> Tensor:
    """A distorted copy of an image, or the image itself if no change was sampled.

    image: (3, H, W) uint8 RGB on any device.
    generator: on the CPU. Brightness, saturation and hue change in this order, each with
        probability 0.5; so does contrast, at random either after brightness or at the end.
    """
    chances = torch.rand(5, generator=generator) < 0.5
    brightness, contrast, contrast_first, saturation, hue = chances.tolist()
    # The same numbers are always sampled, so that no change depends on the changes before it.
    amounts = torch.rand(3, generator=generator).tolist()
    steps = int(torch.randint(-_HUE, _HUE, (), generator=generator))
    if brightness:
        image = _levels(image.float() + _BRIGHTNESS * (2 * amounts[0] - 1))
    if contrast and contrast_first:
        image = _levels(image.float() * _between(_CONTRAST, amounts[1]))
    if saturation:
        image = saturated(image, _between(_SATURATION, amounts[2]))
    if hue:
        image = functional.adjust_hue(image, steps / 180)
    if contrast and not contrast_first:
        image = _levels(image.float() * _between(_CONTRAST, amounts[1]))
    return image


def distorted(image: Image.Image, generator: torch.Generator) -> Image.Image:
    """As `photometric_distortion`, of a PIL image in RGB."""
    levels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)
    changed = photometric_distortion(levels, generator)
    if changed is levels:
        return image
    return Image.fromarray(changed.permute(1, 2, 0).contiguous().numpy())


def saturated(image: Tensor, factor: float) -> Tensor:
    """The image (3, H, W) uint8 with its saturation multiplied, hue and value (of HSV) unchanged.

    Saturation is limited to 1.
    """
    levels = image.float()
    value, least = levels.amax(dim=0), levels.amin(dim=0)
    full = value / (value - least).clamp(min=1)
    return _levels(value - (value - levels) * full.clamp(max=factor))


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def _levels(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)


PolicyName = Literal[
    "autoaugment_log", "autoaugment", "randaugment", "photometric_distortion",
    "clahe_brightness_contrast",
]  # fmt: skip

# Policies that process each pixel separately: a crop can be changed instead of its image.
PIXELWISE: frozenset[PolicyName] = frozenset({"photometric_distortion"})

ImageT = TypeVar("ImageT", Image.Image, Tensor)

# The operations of torchvision's augmentation space that keep pixels in place. It is a list of
# allowed ones, so that operations of a later release are not used before they are checked.
_PHOTOMETRIC = frozenset({
    "Identity", "Brightness", "Color", "Contrast", "Sharpness", "Posterize", "Solarize",
    "AutoContrast", "Equalize", "Invert",
})  # fmt: skip

# The experiment log's policy: those of AutoAugment's 25 sub-policies for ImageNet in which nothing
# is geometric. (probability, operation, index of the magnitude 0..9, where there is one).
# Source: Cubuk et al., "AutoAugment", CVPR 2019, arXiv 1805.09501.
_LOG_SUB_POLICIES = (
    ((0.6, "solarize", 5), (0.6, "autocontrast", 0)),
    ((0.8, "equalize", 0), (0.6, "equalize", 0)),
    ((0.6, "posterize", 7), (0.6, "posterize", 6)),
    ((0.4, "equalize", 0), (0.2, "solarize", 4)),
    ((0.6, "solarize", 3), (0.6, "equalize", 0)),
    ((0.8, "posterize", 5), (1.0, "equalize", 0)),
    ((0.6, "equalize", 0), (0.4, "posterize", 6)),
    ((0.0, "equalize", 0), (0.8, "equalize", 0)),
    ((0.6, "invert", 0), (1.0, "equalize", 0)),
    ((0.6, "color", 4), (1.0, "contrast", 8)),
    ((0.8, "color", 8), (0.8, "solarize", 7)),
    ((0.4, "sharpness", 7), (0.6, "invert", 0)),
    ((0.4, "color", 0), (0.6, "equalize", 0)),
    ((0.4, "equalize", 0), (0.2, "solarize", 4)),
    ((0.6, "solarize", 5), (0.6, "autocontrast", 0)),
    ((0.6, "invert", 0), (1.0, "equalize", 0)),
    ((0.6, "color", 4), (1.0, "contrast", 8)),
    ((0.8, "equalize", 0), (0.6, "equalize", 0)),
)


def apply_policy(image: ImageT, name: PolicyName, generator: torch.Generator) -> ImageT:
    """The image after one random application of the policy, of the same kind and size.

    image: RGB as a PIL image, whose arithmetic is then PIL's, or as (3, H, W) uint8 on any device,
        within a few gray levels of it. It is not changed, and it is returned itself when no
        change was sampled.
    name: "autoaugment_log": 18 sub-policies of two operations each, as the experiment log ran them;
        "autoaugment": torchvision's AutoAugment for ImageNet, of whose 25 sub-policies 18 are
        complete and 7 keep only their photometric operation;
        "randaugment": torchvision's RandAugment, which samples two of 14 operations, of which 9 are
        kept: 8 photometric ones and the identity (Cubuk et al., 2020, arXiv 1909.13719);
        "photometric_distortion": mmsegmentation's (see above), whose arithmetic is the same for
        both kinds of images;
        "clahe_brightness_contrast": local histograms are equalized (see clahe.py) under a clip
        limit sampled from 1 to 4, and contrast and brightness change by up to 0.2, each with
        probability 0.5: albumentations' CLAHE and RandomBrightnessContrast with their defaults.
    generator: on the CPU; with the image, it alone decides the result.
    Raises InputError on any other image or name.
    """
    _check(image, name)
    device = image.device.type if isinstance(image, Tensor) else "cpu"
    # Autocast would convolve, when sharpening, in half precision: eight bits of the intensity.
    with torch.autocast(device, enabled=False):
        if name == "autoaugment_log":
            return _apply_log_policy(image, generator)
        if name == "photometric_distortion":
            if isinstance(image, Tensor):
                return photometric_distortion(image, generator)
            return distorted(image, generator)
        if name == "clahe_brightness_contrast":
            return _apply_clahe_brightness_contrast(image, generator)
        # torchvision samples from torch's global generator, which ours replaces for this call.
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(generator.get_state())
            changed: ImageT = _torchvision_policy(name)(image)
            generator.set_state(torch.get_rng_state())
        return changed


def _check(image: Image.Image | Tensor, name: str) -> None:
    if name not in get_args(PolicyName):
        raise InputError(f"there is no policy {name!r}; {suggest(name, get_args(PolicyName))}")
    if isinstance(image, Tensor):
        fits = image.ndim == 3 and len(image) == 3 and image.dtype == torch.uint8
        got = f"{tuple(image.shape)} {image.dtype}"
    else:
        fits, got = image.mode == "RGB", f"a PIL image of mode {image.mode}"
    if not fits:
        raise InputError(f"policies take RGB, as PIL image or (3, H, W) uint8, got {got}")


def _apply_log_policy(image: ImageT, generator: torch.Generator) -> ImageT:
    sampled = int(torch.randint(len(_LOG_SUB_POLICIES), (), generator=generator))
    for probability, operation, index in _LOG_SUB_POLICIES[sampled]:
        chance, coin = torch.rand(2, generator=generator).tolist()
        if chance < probability:
            image = _operate(image, operation, index, sign=1 if coin < 0.5 else -1)
    return image


def _apply_clahe_brightness_contrast(image: ImageT, generator: torch.Generator) -> ImageT:
    equalize, clip_limit, change, contrast, brightness = torch.rand(5, generator=generator).tolist()
    if equalize < 0.5:
        image = _on_levels(image, partial(equalize_lightness, clip_limit=1 + 3 * clip_limit))
    if change < 0.5:
        levels = np.arange(256) * (0.8 + 0.4 * contrast) + 255 * (0.4 * brightness - 0.2)
        table = levels.round().clip(0, 255).astype(np.uint8)
        image = _on_levels(image, lambda pixels: table[pixels])
    return image


def _on_levels(image: ImageT, change: Callable[[Levels], Levels]) -> ImageT:
    """The image after a function of its bytes (H, W, 3), which is computed on the CPU."""
    if isinstance(image, Tensor):
        pixels = change(image.permute(1, 2, 0).cpu().numpy())
        return torch.from_numpy(pixels).permute(2, 0, 1).contiguous().to(image.device)
    return Image.fromarray(change(np.asarray(image)))


def _operate(image: ImageT, operation: str, index: int, *, sign: int) -> ImageT:
    """The image after one operation of the log's policy; the sign is that of a factor's change."""
    factor = 1 + sign * 0.9 * index / 9
    changed: ImageT
    match operation:
        case "posterize":
            changed = functional.posterize(image, bits=round(8 - 4 * index / 9))
        case "solarize":  # inverts the levels from the threshold on; index 0 would be none of them
            changed = functional.solarize(image, threshold=256 * (1 - index / 9))
        case "color":
            changed = functional.adjust_saturation(image, factor)
        case "contrast":
            changed = functional.adjust_contrast(image, factor)
        case "sharpness":
            changed = functional.adjust_sharpness(image, factor)
        case "equalize":
            changed = functional.equalize(image)
        case "autocontrast":
            changed = functional.autocontrast(image)
        case "invert":
            changed = functional.invert(image)
        case _:
            raise AssertionError(f"the table has an unknown operation {operation!r}")
    return changed


@cache
def _torchvision_policy(name: PolicyName) -> v2.Transform:
    """torchvision's transform without the operations that move pixels.

    The two attributes are torchvision's own (the same in 0.24 and 0.29). Were a geometric operation
    to stay in a sub-policy, it would not be found in the space, and the transform would fail.
    """
    transform = v2.AutoAugment() if name == "autoaugment" else v2.RandAugment()
    space = transform._AUGMENTATION_SPACE
    transform._AUGMENTATION_SPACE = {op: space[op] for op in space if op in _PHOTOMETRIC}
    if name == "autoaugment":
        kept = (tuple(s for s in pair if s[0] in _PHOTOMETRIC) for pair in transform._policies)
        transform._policies = [sub_policy for sub_policy in kept if sub_policy]
    return transform
