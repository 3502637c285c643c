"""Whether a batch is what networks take: float RGB in [0, 1], not bytes as floats."""

import torch
from torch import Tensor

# Objectives may leave [0, 1] a little, as Fourier amplitudes of another image do.
_FAR_OUTSIDE = 16.0


def check_images(images: Tensor, *, levels: bool) -> None:
    """Raises ValueError for images that are not (N, 3, H, W) float and, if their `levels` are to be
    looked at, for those far outside [0, 1]: networks would make nonsense of 0 to 255 as floats."""
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"images are {tuple(images.shape)} {images.dtype}; allowed: (N, 3, H, W) float RGB in "
            "[0, 1]; divide bytes by 255 first"
        )
    if not levels or images.numel() == 0:
        return
    highest = float(images.detach().amax())
    if highest > _FAR_OUTSIDE:
        raise ValueError(
            f"images have values up to {highest:g}; allowed: float RGB in [0, 1]; divide by 255 "
            "first"
        )


def may_look(images: Tensor) -> bool:
    """Whether the numbers of a tensor can be looked at: not while a network is traced, compiled or
    exported, nor where a tensor only stands for one."""
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined]
    traced = torch.compiler.is_compiling() or tracing
    return not traced and type(images) is Tensor and not images.is_meta
