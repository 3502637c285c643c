"""Batch and View: what a step reads. Every shape is written here, once."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Batch:
    """N samples of each domain at crop size, as the loader hands them over or on the device.

    `target_ground_truth` is there when the preset says `data.target_ground_truth`, which makes it
    a supervised one. In every other run nothing that trains can reach the target's labels.
    """

    # H and W may differ between source and target, see DomainConfig.crop; an objective that mixes
    # them declares that it needs equal ones.
    # (N, 3, H, W) RGB: uint8 from the loader, float in [0, 1] on the device; (0, 3, H, W) when the
    # preset has no source
    source_images: Tensor
    source_labels: Tensor  # (N, H, W) train ids: uint8 from the loader, int64 on the device
    target_images: Tensor  # like source_images; (0, 3, H, W) when the preset has no target
    target_pseudo_labels: Tensor | None  # like source_labels, read from a folder; None without one
    indices: tuple[int, ...]  # global number of each sample of the run: its source of randomness
    source_names: tuple[str, ...]
    target_names: tuple[str, ...]
    target_ground_truth: Tensor | None = None  # like source_labels
    # Like target_images: the same pictures once more, in a crop of their own. Nothing is aligned.
    target_second_images: Tensor | None = None
    # (N, H, W) bool, false where labels of the target images do not count, whoever makes them:
    # see DomainConfig.ignored_borders; None: they count everywhere
    target_valid: Tensor | None = None

    def to_device(self, device: torch.device) -> "Batch":
        """The same batch on `device`: images float in [0, 1] and channels-last, labels int64."""

        def images(tensor: Tensor) -> Tensor:
            tensor = tensor.to(device, non_blocking=True).float().div_(255)
            return tensor.contiguous(memory_format=torch.channels_last)

        def labels(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True).long()

        def valid(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        return self._with(images, labels, valid)

    def pin_memory(self) -> "Batch":
        """The same batch in page-locked memory, from where copies need not wait for each other.

        The loader calls this; without it, its own `pin_memory` would not pin a Batch.
        """
        return self._with(Tensor.pin_memory, Tensor.pin_memory, Tensor.pin_memory)

    def _with(
        self,
        images: Callable[[Tensor], Tensor],
        labels: Callable[[Tensor], Tensor],
        valid: Callable[[Tensor], Tensor],
    ) -> "Batch":
        """The batch with each function applied to its images, labels or `target_valid`."""

        def optional(change: Callable[[Tensor], Tensor], tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else change(tensor)

        return replace(
            self,
            source_images=images(self.source_images),
            source_labels=labels(self.source_labels),
            target_images=images(self.target_images),
            target_pseudo_labels=optional(labels, self.target_pseudo_labels),
            target_ground_truth=optional(labels, self.target_ground_truth),
            target_second_images=optional(images, self.target_second_images),
            target_valid=optional(valid, self.target_valid),
        )


@dataclass(frozen=True, slots=True)
class View:
    """Images that the student will see in a step, with the labels known for them."""

    name: str  # "source", "target", or the name an objective gave it
    images: Tensor  # (N, 3, H, W) float RGB in [0, 1]
    labels: Tensor | None = None  # (N, H, W) int64 train ids, 255 ignored
    weights: Tensor | None = None  # (N, H, W) or (N, 1, 1) float, factor of each pixel's loss
    # Applied to the encoder's feature maps, each (N, D, h, w), before the decoder reads them.
    perturb: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]] | None = None
    # From (h, w) of the encoder's grid of tokens to (N, h, w) bool on the CPU or the device: where
    # it is true, the student sees the encoder's mask token. Its config needs "mask_token".
    hide_tokens: Callable[[int, int], Tensor] | None = None
