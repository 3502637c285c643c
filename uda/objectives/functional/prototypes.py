"""Prototypes: a mean feature for each class, and how features are assigned to them."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uda.models.segmenter import Segmenter
from uda.utilities.distributed import of_all_ranks

_MOST = 3000  # images of a plain mean; later ones weigh as much as this one


def at_stride(maps: Tensor, images: Tensor, stride: int) -> Tensor:
    """Maps (N, K, ..., ...) as float32 at 1 / stride of the size of images (N, 3, H, W)."""
    size = [-(-side // stride) for side in images.shape[2:]]
    return F.interpolate(maps.float(), size, mode="bilinear", align_corners=True)


def distances(features: Tensor, prototypes: Tensor) -> Tensor:
    """Euclidean distances (N, C, h, w) of features (N, D, h, w) to prototypes (C, D)."""
    with torch.autocast(features.device.type, enabled=False):  # small differences of large numbers
        features = features.float()
        products = torch.einsum("ndhw,cd->nchw", features, prototypes)
        lengths = features.square().sum(dim=1, keepdim=True)
        squares = lengths - 2 * products + prototypes.square().sum(dim=1)[:, None, None]
        return squares.clamp(min=1e-12).sqrt()  # at 0, a root has no gradient


def log_assignments(found: Tensor, temperature: float) -> Tensor:
    """Logarithms (N, C, h, w) of softmax over the classes of -distance / temperature."""
    return F.log_softmax(-found / temperature, dim=1)


@torch.no_grad()
def denoised_labels(probabilities: Tensor, log_weights: Tensor) -> Tensor:
    """The classes (N, h, w) int64 with the highest product of probability and weight, both
    (N, C, h, w): Zhang et al., arXiv 2101.10979, equations 4 and 5."""
    return (probabilities * log_weights.exp()).max(dim=1).indices


class Prototypes(nn.Module):
    """A moving mean feature of each class, the same on all processes; they carry no gradient."""

    values: Tensor  # (C, D)
    images: Tensor  # (C,) int64, of how many each is made

    def __init__(
        self, num_classes: int, *, temperature: float, momentum: float, pixels: int, stride: int
    ) -> None:
        """`momentum`: share of a prototype that an image leaves once training has begun; `pixels`:
        of a class, below which an image does not change its prototype; `stride`: see `at_stride`.
        `reset` gives the size."""
        super().__init__()
        self.temperature, self.momentum = temperature, momentum
        self.pixels, self.stride = pixels, stride
        self.register_buffer("values", torch.zeros(num_classes, 0))
        self.register_buffer("images", torch.zeros(num_classes, dtype=torch.int64))

    @torch.no_grad()
    def reset_for(self, network: Segmenter) -> None:
        """Prototypes of no image, for the features of a frozen network."""
        image = next(network.parameters()).new_zeros(1, 3, 64, 64)
        self.reset(channels=network(image).embedded.shape[1])

    def reset(self, *, channels: int) -> None:
        """Prototypes of no image, for features of so many channels."""
        self.values = self.values.new_zeros(len(self.values), channels)
        self.images = torch.zeros_like(self.images)

    @torch.no_grad()
    def probabilities_of(self, network: Segmenter, images: Tensor) -> Tensor:
        """Probabilities (N, C, h, w) that a frozen network predicts, at the stride."""
        network.eval()
        return at_stride(network(images).logits, images, self.stride).softmax(dim=1)

    def assigned(self, features: Tensor, images: Tensor) -> Tensor:
        """Logarithms (N, C, h, w) of the assignments of features (N, D, ..., ...), at the stride
        of `images` (N, 3, H, W)."""
        found = distances(at_stride(features, images, self.stride), self.values)
        return log_assignments(found, self.temperature)

    @torch.no_grad()
    def average(self, network: Segmenter, batches: Iterable[Tensor]) -> None:
        """Makes the prototypes the mean features of all images (N, 3, H, W) of the batches, by the
        classes that a frozen network predicts."""
        network.eval()
        for images in batches:
            found = network(images)
            self.update(found.logits, found.embedded, average=True)

    @torch.no_grad()
    def update(self, logits: Tensor, features: Tensor, *, average: bool = False) -> None:
        """Moves each prototype toward the class's mean feature in each image in turn.

        logits: (N, C, H, W), whose highest is a pixel's class; features: (N, D, ..., ...).
        `average`: the prototypes are the plain mean over the images so far. The first image of a
        class gives it its prototype.
        """
        features = at_stride(features, logits, self.stride).flatten(2)
        labels = at_stride(logits, logits, self.stride).max(dim=1).indices.flatten(1)
        masks = labels[:, None] == torch.arange(len(self.values), device=labels.device)[:, None]
        counts = masks.sum(dim=2)
        sums = torch.einsum("ncp,ndp->ncd", masks.float(), features)
        means = of_all_ranks(sums / counts.clamp(min=1)[..., None])
        for mean, count in zip(means, of_all_ranks(counts), strict=True):
            present = count >= self.pixels
            share = 1 / (self.images.clamp(max=_MOST - 1) + 1)
            if not average:
                share = torch.where(self.images > 0, 1 - self.momentum, 1.0)
            share = torch.where(present, share, 0.0)[:, None].to(mean)
            self.values.copy_(torch.lerp(self.values, mean, share))
            self.images += present
