"""Gaussian blur on the device."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Border = Literal["replicate", "reflect"]


def gaussian_blur(
    images: Tensor,
    sigma: float,
    *,
    radii: tuple[int, int] | None = None,
    border: Border = "replicate",
) -> Tensor:
    """Images (N, C, H, W) blurred with a Gaussian of `sigma` pixels, above 0.

    radii: of the kernel (down, across), below H and W for the border "reflect"; None: 3 sigma.
    border: pixels beyond it repeat the last one, or mirror what is before it.
    """
    down, across = radii or (math.ceil(3 * sigma),) * 2
    channels = images.shape[1]
    # Autocast would run the convolutions in half precision: eight bits of an image's intensity.
    with torch.autocast(images.device.type, enabled=False):
        images = F.pad(images, (across, across, down, down), mode=border)
        rows = _taps(sigma, across, images).expand(channels, 1, 1, -1)
        images = F.conv2d(images, rows, groups=channels)
        columns = _taps(sigma, down, images).view(-1, 1).expand(channels, 1, -1, 1)
        return F.conv2d(images, columns, groups=channels)


def _taps(sigma: float, radius: int, images: Tensor) -> Tensor:
    offsets = range(-radius, radius + 1)
    taps = [math.exp(-0.5 * (offset / sigma) ** 2) for offset in offsets]
    kernel = torch.tensor([tap / math.fsum(taps) for tap in taps], dtype=images.dtype)
    return kernel.to(images.device, non_blocking=True)
