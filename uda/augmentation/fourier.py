"""Images with the low frequencies of others: the amplitude of one, the phase of the other."""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from uda.utilities.errors import InputError

Window = Literal["asymmetric", "symmetric"]


def swap_amplitude(images: Tensor, others: Tensor, *, band: float, window: Window) -> Tensor:
    """Images (N, C, H, W) float32 with the low-frequency amplitudes of `others`, by channel.

    images, others: (N, C, H, W) float, of one shape; in any unit, as the result is linear in it:
    k * images with k * others give k times the result. Values may leave the range of the images:
    nothing is clamped. Where an amplitude of `images` is 0, its phase counts as 0.
    band: of the shorter side, rounded down to b frequencies.
    window: which frequencies. "asymmetric": -b to b - 1, (2b)^2 of them; as they are not in pairs,
    the result has an imaginary part, which is dropped. "symmetric": -b to b, (2b + 1)^2 of them.
    The mean (frequency 0) is among them, unless b is 0 and the window asymmetric: then nothing
    changes.

    Always in float32: half precision has no Fourier transform of sizes such as these.
    Raises InputError on images of two shapes, or another window.
    Source: Yang and Soatto, "FDA", CVPR 2020, arXiv 2004.05498, section 2.1. Its code,
    YanchaoYang/FDA@b9a0cdf0, trains with "asymmetric", and shows "symmetric" in a demonstration.
    """
    if images.shape != others.shape:
        raise InputError(
            f"amplitudes are swapped between images of {tuple(images.shape)} and "
            f"{tuple(others.shape)}; allowed: as many images of one size, so let source and target "
            "have crops of one size"
        )
    if window not in get_args(Window):
        raise InputError(f"the window is {window!r}; allowed: {', '.join(get_args(Window))}")
    height, width = images.shape[-2:]
    b = lowest_frequencies((height, width), band)
    rows, columns = (_window(side, b, window).to(images.device) for side in (height, width))
    if not len(rows):
        return images.float()
    with torch.autocast(images.device.type, enabled=False):
        spectrum = torch.fft.fft2(images.float())
        place = (..., rows[:, None], columns)
        amplitude = torch.fft.fft2(others.float())[place].abs()
        spectrum[place] = torch.polar(amplitude, spectrum[place].angle())
        return torch.fft.ifft2(spectrum).real.contiguous()


def lowest_frequencies(size: tuple[int, int], band: float) -> int:
    """The number b of frequencies in the `band` of an image of `size` (H, W)."""
    return math.floor(min(size) * band)


def _window(side: int, b: int, window: Window) -> Tensor:
    """The places of the window's frequencies along one side of an unshifted spectrum, ascending."""
    last = b if window == "symmetric" else b - 1
    return torch.tensor(sorted({f % side for f in range(-b, last + 1)}), dtype=torch.int64)
