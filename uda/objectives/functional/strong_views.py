"""Strong views: images whose look changes much while every pixel stays in place."""

from collections.abc import Sequence

import torch
from torch import Tensor

from uda.augmentation.policies import PolicyName, apply_policy

_GRAY = 0.5  # of a box that hides a part


def strong_view(
    images: Tensor,
    *,
    policy: PolicyName | None,
    hidden: float,
    generators: Sequence[torch.Generator],
) -> Tensor:
    """Images (N, 3, H, W) float in [0, 1] after a policy, each with a gray square (Cutout, DeVries
    and Taylor, arXiv 1708.04552) whose side is the share `hidden` of the image's shorter one.

    The square's center is anywhere in the image, so a part of it may lie outside.
    """
    changed = torch.empty_like(images)
    height, width = images.shape[2:]
    side = round(hidden * min(height, width))
    for image, result, generator in zip(images, changed, generators, strict=True):
        result.copy_(image)
        if policy is not None:
            levels = (image * 255).round().to(torch.uint8)  # policies are defined on bytes
            result.copy_(apply_policy(levels, policy, generator)).div_(255)
        if side:
            top, left = (
                int(torch.randint(size, (), generator=generator)) - side // 2
                for size in (height, width)
            )
            result[:, max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = _GRAY
    return changed
