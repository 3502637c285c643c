"""Photometric distortion as in SSD and mmsegmentation: light, contrast, colors.

Every pixel changes by itself, so that distorting a crop is the same as cropping the distorted.
Source: Liu et al., "SSD", ECCV 2016, arXiv 1512.02325; `PhotoMetricDistortion` of mmsegmentation's
documentation, whose figures these are.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

_BRIGHTNESS = 32.0  # gray levels added at most
_CONTRAST = (0.5, 1.5)  # factor of every level, so dark ones change least
_SATURATION = (0.5, 1.5)  # factor
_HUE = 18  # of the 180 steps that OpenCV divides the circle into


def photometric_distortion(image: Tensor, generator: torch.Generator) -> Tensor:
    """A distorted copy of an image, or the image itself where nothing was drawn.

    image: (3, H, W) uint8 RGB on any device.
    generator: on the CPU. A coin each decides on brightness, saturation and hue, in this order,
        and on contrast, which by another coin comes between the first two or at the end.
    """
    chances = torch.rand(5, generator=generator) < 0.5
    brightness, contrast, contrast_first, saturation, hue = chances.tolist()
    # Always the same draws, so that one change does not depend on what came before it.
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
    """The image (3, H, W) uint8 with its saturation multiplied, hue and value (of HSV) as they are.

    What would be more than full saturation is full.
    """
    levels = image.float()
    value, least = levels.amax(dim=0), levels.amin(dim=0)
    full = value / (value - least).clamp(min=1)
    return _levels(value - (value - levels) * full.clamp(max=factor))


def _between(limits: tuple[float, float], share: float) -> float:
    return limits[0] + (limits[1] - limits[0]) * share


def _levels(values: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8)
