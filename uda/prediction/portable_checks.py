"""Whether a file computes what its network does."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uda.data.toy_city.city import toy_image
from uda.evaluation.protocols import Size
from uda.prediction.portable_network import PortableNetwork, logits_of

_DIFFERENCE = 1e-4  # of logits, by the largest: other orders of sums in float32 stay far below
_LEAST = 64  # pixels of a side of the toy city


class Check(NamedTuple):
    """What a file computes, compared with its network on some images."""

    images: str  # in words
    equal: bool  # every label is the network's, but for ties
    # Pixels with another label, whose logit is as high as rounding can tell: less than twice
    # `difference` below the highest.
    ties: int
    difference: float  # the largest, of logits
    largest: float  # logit of the network

    @property
    def agrees(self) -> bool:
        """Whether the file can be used in the network's place."""
        return self.equal and self.difference <= _allowed(self.largest)

    def __str__(self) -> str:
        labels = "equal" if self.equal else "DIFFERENT"
        labels += (
            f" but for {self.ties} tie{'s' * (self.ties > 1)}" if self.equal and self.ties else ""
        )
        return (
            f"labels {labels}, largest logit difference {self.difference:.1e} "
            f"(logits up to {self.largest:.3g})"
        )


def _allowed(largest: float) -> float:
    """The difference of logits up to `largest` that rounding may make."""
    return _DIFFERENCE * largest


class Reference(NamedTuple):
    """Images, and the network's own logits for them."""

    images: str  # in words
    pixels: Tensor  # as the file takes them
    logits: Tensor

    def check(self, found: Mapping[str, Tensor], *, difference: float = 0.0) -> Check:
        """The outputs `found`, compared with the network's; `difference` is that of logits where
        these are not among them."""
        if "logits" in found:
            difference = float((found["logits"] - self.logits).abs().max())
        labels = found["labels"].long() if "labels" in found else found["logits"].argmax(dim=1)
        chosen = self.logits.gather(1, labels[:, None])[:, 0]
        short = self.logits.amax(dim=1) - chosen
        largest = float(self.logits.abs().max())
        # Where logits differ by more than by rounding, no label is excused.
        excused = 2 * difference if difference <= _allowed(largest) else 0.0
        equal = bool((short <= excused).all())
        if "confidence" in found:
            probability = self.logits.softmax(dim=1).amax(dim=1)
            off = float((found["confidence"] - probability).abs().max())
            equal &= off <= 2 * difference + 1e-5
        return Check(
            images=self.images,
            equal=equal,
            ties=int((short > 0).sum()),
            difference=difference,
            largest=largest,
        )


@torch.no_grad()
def references(
    network: PortableNetwork, *, sizes: tuple[Size, Size], batch: int
) -> list[Reference]:
    """`batch` images of noise of the first size, and a street of the toy city of the second."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (batch, *sizes[0], 3), dtype=torch.uint8, generator=generator)
    street = torch.from_numpy(_street(sizes[1]))[None]
    found = []
    for name, pixels in (("noise", noise), ("toy city", street)):
        # Not by `PortableNetwork`, which is checked as well.
        images = pixels.movedim(3, 1).contiguous().float().div(255)
        logits = logits_of(network.segmenter, images, fused=network.fused)
        words = f"{name} {len(pixels)} x {pixels.shape[2]}x{pixels.shape[1]}"
        found.append(Reference(words, pixels if network.pixels == "uint8" else images, logits))
    return found


def _street(size: Size) -> "np.ndarray[tuple[int, ...], np.dtype[np.uint8]]":
    drawn = (max(_LEAST, size[0]), max(_LEAST, size[1]))
    image = toy_image("source", 0, seed=0, size=drawn).image
    return np.ascontiguousarray(image[: size[0], : size[1]])
