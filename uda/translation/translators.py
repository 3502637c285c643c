"""What every translation has in common: an image comes in, one of the same size comes out."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from uda.data.samples import Sample
from uda.data.translated_folder import images_digest


class Partners:
    """Images of the target, one of which is drawn for each image by its name and a seed."""

    def __init__(self, samples: Sequence[Sample], *, seed: int) -> None:
        self.samples = samples
        self.seed = seed

    def of(self, name: str) -> Sample:
        """That of the image `name`: neither the order of the images nor other ones matter."""
        number = hashlib.sha256(f"{self.seed}/{name}".encode()).digest()
        return self.samples[int.from_bytes(number, "big") % len(self.samples)]

    def facts(self) -> dict[str, str]:
        """What the drawing depends on, as a manifest says it."""
        return {
            "target": self.samples[0].dataset,
            "partners": str(len(self.samples)),
            "partners_sha256": images_digest(self.samples),
            "seed": str(self.seed),
        }


class Translator(Protocol):
    """Gives images of the source the look of the target."""

    method: str  # one word
    partners: Partners | None  # where each image is translated with one of the target

    def __call__(self, image: Tensor, partner: Tensor | None) -> Tensor:
        """An image (3, H, W) float RGB in [0, 1] as the target would look, the same on its device.

        partner: an image of the target of the same size, where `partners` draws one.
        """
        ...

    def facts(self) -> dict[str, str]:
        """All that the result depends on: settings, target, the network and its file's SHA-256."""
        ...
