"""Colors with the mean and covariance of the target's, in CIE Lab: a translation without training.

Lab is CIE 1976 L*a*b* (L 0 to 100) of sRGB under its white, D65: XYZ / white = (0.950456, 1,
1.088754); f(t) = t^(1/3) above (6/29)^3, else t / (3 (6/29)^2) + 4/29; L = 116 f(Y) - 16,
a = 500 (f(X) - f(Y)), b = 200 (f(Y) - f(Z)).
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from uda.augmentation.clahe import RGB_TO_XYZ
from uda.translation.translators import Partners

Match = Literal["image", "set"]
_BEND = 6 / 29
# Deviations are limited from below by this, in units of Lab, so that an image of one color does
# not have its noise of rounding amplified.
_SMALLEST_DEVIATION = 0.5


class ColorStatistics(NamedTuple):
    """Of the colors of one or many images in Lab, float64."""

    mean: Tensor  # (3,)
    covariance: Tensor  # (3, 3)


def rgb_to_lab(images: Tensor) -> Tensor:
    """Lab of images (..., 3, H, W) float sRGB in [0, 1]: L 0 to 100, a and b about -110 to 110."""
    linear = torch.where(
        images > 0.04045, ((images.clamp(min=0.0) + 0.055) / 1.055) ** 2.4, images / 12.92
    )
    x, y, z = _mixed(torch.from_numpy(RGB_TO_XYZ), linear).unbind(-3)
    x, y, z = (
        torch.where(t > _BEND**3, t.clamp(min=0.0) ** (1 / 3), t / (3 * _BEND**2) + 4 / 29)
        for t in (x, y, z)
    )
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), dim=-3)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """sRGB in [0, 1] of images (..., 3, H, W) in Lab; colors that no screen shows are clipped."""
    lightness, a, b = lab.unbind(-3)
    y = (lightness + 16) / 116
    roots = torch.stack((y + a / 500, y, y - b / 200), dim=-3)
    xyz = torch.where(roots > _BEND, roots**3, 3 * _BEND**2 * (roots - 4 / 29))
    linear = _mixed(torch.linalg.inv(torch.from_numpy(RGB_TO_XYZ)), xyz).clamp(0, 1)
    return torch.where(
        linear > 0.0031308, 1.055 * linear.clamp(min=1e-9) ** (1 / 2.4) - 0.055, 12.92 * linear
    ).clamp(0, 1)


def color_statistics(images: Iterable[Tensor]) -> ColorStatistics:
    """Mean and covariance of all pixels of `images`, each (3, H, W) float sRGB in [0, 1]."""
    count = 0
    total, products = torch.zeros(3).double(), torch.zeros(3, 3).double()
    for image in images:
        pixels = rgb_to_lab(image).flatten(1).double()
        count += pixels.shape[1]
        total += pixels.sum(1).cpu()
        products += (pixels @ pixels.T).cpu()
    mean = total / count
    return ColorStatistics(mean, products / count - torch.outer(mean, mean))


def match_colors(image: Tensor, target: ColorStatistics) -> Tensor:
    """The image (3, H, W) float sRGB in [0, 1] with its colors moved, by one affine map in Lab, to
    the mean and covariance of `target`; equal statistics leave it as it is.

    Of all maps that do so, it is the one that moves colors least, in the sum of squares:
    A = S^(-1/2) (S^(1/2) T S^(1/2))^(1/2) S^(-1/2), S and T the covariances.

    Source: Pitie and Kokaram, "The linear Monge-Kantorovitch linear colour mapping for
    example-based colour transfer", CVMP 2007.
    """
    own = color_statistics([image])
    least = _SMALLEST_DEVIATION**2 * torch.eye(3).double()
    root = _power(own.covariance + least, 0.5)
    inverse = _power(own.covariance + least, -0.5)
    matrix = inverse @ _power(root @ (target.covariance + least) @ root, 0.5) @ inverse
    lab = rgb_to_lab(image)
    mean, new_mean = (m.to(lab)[:, None, None] for m in (own.mean, target.mean))
    return lab_to_rgb(_mixed(matrix, lab - mean) + new_mean)


def _mixed(matrix: Tensor, images: Tensor) -> Tensor:
    """The channels of images (..., 3, H, W) multiplied by a matrix (3, 3)."""
    return torch.einsum("ij,...jhw->...ihw", matrix.to(images), images)


def _power(matrix: Tensor, exponent: float) -> Tensor:
    """A power of a symmetric positive definite matrix (3, 3)."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors @ torch.diag(values.clamp(min=1e-12) ** exponent) @ vectors.T


class ColorTranslator:
    """`match_colors` to the whole target (`statistics`), or to one image of it (`partners`)."""

    method = "color"

    def __init__(
        self,
        *,
        statistics: ColorStatistics | None = None,
        target: str = "",
        partners: Partners | None = None,
    ) -> None:
        """target: the name of the data set that has the `statistics`."""
        assert (statistics is None) != (partners is None), "one of the two"
        self.statistics = statistics
        self.target = target
        self.partners = partners

    def __call__(self, image: Tensor, partner: Tensor | None) -> Tensor:
        """See `Translator`."""
        statistics = self.statistics
        if statistics is None:
            assert partner is not None, "each image has one"
            statistics = color_statistics([partner])
        return match_colors(image, statistics)

    def facts(self) -> dict[str, str]:
        """See `Translator`."""
        said = {"space": "CIE Lab, D65", "match": "set" if self.partners is None else "image"}
        if self.partners is not None:
            return said | self.partners.facts()
        assert self.statistics is not None, "one of the two"
        mean, covariance = (values.flatten().tolist() for values in self.statistics)
        return said | {
            "target": self.target,
            "mean": " ".join(f"{value:.4f}" for value in mean),
            "covariance": " ".join(f"{value:.4f}" for value in covariance),
        }
