"""Whether a network that learns from a stream of images has gone astray, without any label."""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_IMAGES = 10  # that are judged together: the last ones
# The least share of the start's number of classes, of these images and of a single one.
_DIVERSITY, _DIVERSITY_OF_ONE = 0.8, 0.5
_AGREEMENT, _AGREEMENT_OF_ONE = 0.5, 0.3  # the least share of pixels with the start's class


class _Compared(NamedTuple):
    """Predictions on one image, adapted and as at the start."""

    adapted: Tensor  # (C,) mean probabilities
    start: Tensor  # (C,)
    agreement: Tensor  # share of pixels to which both give the same class


class Drift:
    """Compares a network with itself as it was at the start, on the same images.

    It has drifted when, over the last ten images, its predictions are of fewer than 0.8 of the
    start's effective number of classes (exp of the entropy of the mean prediction), or when both
    give the same class to less than half of the pixels. On one image alone, the bounds are 0.5 and
    0.3. As both see the same images, what these show has no part in it: a tunnel is no collapse.

    On the toy city, healthy streams stay above 0.9 and 0.7 over ten images, and above 0.65 and 0.6
    on single ones.
    """

    def __init__(self) -> None:
        self._seen: deque[_Compared] = deque(maxlen=_IMAGES)

    def sees(self, adapted: Tensor, start: Tensor) -> bool:
        """Adds the logits (1, C, h, w) that both have for one image; whether it has drifted, which
        begins a new comparison."""
        ours, theirs = adapted.detach().float().softmax(1), start.detach().float().softmax(1)
        same = (ours.argmax(1) == theirs.argmax(1)).float().mean()
        self._seen.append(_Compared(ours.mean((0, 2, 3)), theirs.mean((0, 2, 3)), same))
        astray = (
            not bool(ours.isfinite().all())
            or _astray(list(self._seen), _DIVERSITY, _AGREEMENT)
            or _astray([self._seen[-1]], _DIVERSITY_OF_ONE, _AGREEMENT_OF_ONE)
        )
        if astray:
            self._seen.clear()
        return astray


def _astray(seen: Sequence[_Compared], diversity: float, agreement: float) -> bool:
    adapted, start, same = (torch.stack(values).mean(0) for values in zip(*seen, strict=True))
    return bool(classes_of(adapted) < diversity * classes_of(start)) or bool(same < agreement)


def classes_of(shares: Tensor) -> Tensor:
    """The effective number of classes of shares (C,) that sum to 1: 1 to C."""
    return torch.special.entr(shares).sum().exp()
