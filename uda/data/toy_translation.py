"""Color transfer: the toy city's stand-in for images translated by a CycleGAN."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


class ColorStatistics(NamedTuple):
    """Of an image's pixels in the l-alpha-beta color space, one value per axis."""

    mean: Floats  # (3,)
    deviation: Floats  # (3,)


# RGB to the cones' responses, and their logarithms to lightness, yellow-blue and red-green.
# Source: Reinhard et al., "Color Transfer between Images", IEEE CG&A 2001, equations 4 to 6.
_RGB_TO_LMS: Floats = np.array(
    ((0.3811, 0.5783, 0.0402), (0.1967, 0.7244, 0.0782), (0.0241, 0.1288, 0.8444)), np.float32
)
_LMS_TO_LAB: Floats = np.array(
    (
        (1 / 3**0.5, 1 / 3**0.5, 1 / 3**0.5),
        (1 / 6**0.5, 1 / 6**0.5, -2 / 6**0.5),
        (1 / 2**0.5, -1 / 2**0.5, 0),
    ),
    np.float32,
)
_LMS_TO_RGB: Floats = np.linalg.inv(_RGB_TO_LMS).astype(np.float32)
_LAB_TO_LMS: Floats = _LMS_TO_LAB.T  # its rows are orthonormal


def color_statistics(image: Bytes) -> ColorStatistics:
    """Mean and standard deviation of an (H, W, 3) RGB image's colors."""
    return _statistics(_to_lab(image))


def match_colors(image: Bytes, statistics: ColorStatistics) -> Bytes:
    """The image with its colors moved to the given mean and standard deviation, (H, W, 3).

    The toy city's stand-in for a CycleGAN translation: the target's colors, the source's shapes.
    """
    lab = _to_lab(image)
    own = _statistics(lab)
    ratio = statistics.deviation / (own.deviation + np.float32(1e-6))  # of one color only: no 0
    moved = (lab - own.mean[:, None]) * ratio[:, None] + statistics.mean[:, None]
    rgb = _apply(_LMS_TO_RGB, np.exp(_apply(_LAB_TO_LMS, moved)))
    return np.clip(rgb.T.reshape(image.shape) + 0.5, 0, 255).astype(np.uint8)


def _to_lab(image: Bytes) -> Floats:
    """(3, H * W) float32."""
    rgb = image.reshape(-1, 3).T.astype(np.float32)
    # Black has no logarithm; a floor of 8 of 255 keeps tires from ruling the deviation.
    return _apply(_LMS_TO_LAB, np.log(_apply(_RGB_TO_LMS, np.maximum(rgb, 8))))


def _apply(matrix: Floats, pixels: Floats) -> Floats:
    # Not `@`: a threaded BLAS may round differently with another number of threads.
    return np.einsum("ij,jn->in", matrix, pixels)


def _statistics(lab: Floats) -> ColorStatistics:
    return ColorStatistics(lab.mean(1), lab.std(1))
