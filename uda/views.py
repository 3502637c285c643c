"""Batch and View: what a step reads. Every shape is written here, once."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """N samples of each domain at crop size, as the loader hands them over or on the device.

    There is no field for the target's labels: nothing that trains can reach them.
    """

    source_images: Tensor  # (N, 3, H, W) RGB: uint8 from the loader, float in [0, 1] on the device
    source_labels: Tensor  # (N, H, W) train ids: uint8 from the loader, int64 on the device
    target_images: Tensor  # like source_images; (0, 3, H, W) when the preset has no target
    target_pseudo_labels: Tensor | None  # like source_labels, read from a folder; None without one
    indices: tuple[int, ...]  # global number of each sample of the run: its source of randomness
    source_names: tuple[str, ...]
    target_names: tuple[str, ...]

    def to_device(self, device: torch.device) -> "Batch":
        """The same batch on `device`: images float in [0, 1] and channels-last, labels int64."""

        def images(tensor: Tensor) -> Tensor:
            tensor = tensor.to(device, non_blocking=True).float().div_(255)
            return tensor.contiguous(memory_format=torch.channels_last)

        def labels(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True).long()

        pseudo_labels = self.target_pseudo_labels
        return replace(
            self,
            source_images=images(self.source_images),
            source_labels=labels(self.source_labels),
            target_images=images(self.target_images),
            target_pseudo_labels=None if pseudo_labels is None else labels(pseudo_labels),
        )

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where copies need not wait for each other.

        The loader calls this; without it, its own `pin_memory` would leave a Batch as it is.
        """
        pseudo_labels = self.target_pseudo_labels
        return replace(
            self,
            source_images=self.source_images.pin_memory(),
            source_labels=self.source_labels.pin_memory(),
            target_images=self.target_images.pin_memory(),
            target_pseudo_labels=None if pseudo_labels is None else pseudo_labels.pin_memory(),
        )


@dataclass(frozen=True, slots=True)
class View:
    """Images that the student will see in a step, with the labels known for them."""

    name: str  # "source", "target", or the name an objective gave it
    images: Tensor  # (N, 3, H, W) float RGB in [0, 1]
    labels: Tensor | None = None  # (N, H, W) int64 train ids, 255 ignored
    weights: Tensor | None = None  # (N, H, W) or (N, 1, 1) float, factor of each pixel's loss
