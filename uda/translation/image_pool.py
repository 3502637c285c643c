"""A pool of earlier translations, which keeps a discriminator from forgetting them.

Source: Shrivastava et al., CVPR 2017, arXiv 1612.07828, section 2.3, as CycleGAN uses it.
"""

import torch
from torch import Tensor


class ImagePool:
    """Holds up to `size` images. Until it is full, each image is stored and returned; then, in half
    of the cases, it takes the place of a stored one, which is returned instead."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._images: list[Tensor] = []

    def exchanged(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """What the discriminator is shown for `images` (N, 3, H, W), which carry no gradient.

        generator: of the CPU; it decides for each image.
        """
        shown = []
        for image in images.detach():
            if len(self._images) < self.size:
                self._images.append(image.clone())
                shown.append(image)
                continue
            swap = torch.rand((), generator=generator).item() < 0.5
            if not (swap and self.size):
                shown.append(image)
                continue
            place = int(torch.randint(self.size, (), generator=generator))
            shown.append(self._images[place])
            self._images[place] = image.clone()
        return torch.stack(shown)

    def state(self) -> Tensor | None:
        """The stored images (n, 3, H, W), if there are any."""
        return torch.stack(self._images).cpu() if self._images else None

    def load_state(self, images: Tensor | None, device: torch.device) -> None:
        """Restores what `state` returned."""
        self._images = [] if images is None else list(images.to(device))
