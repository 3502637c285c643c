"""Batch-norm statistics re-estimated on unlabeled images; the weights stay as they are.

Source: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016,
arXiv 1603.04779 (AdaBN). With a `prior`: Schneider et al., "Improving robustness against common
corruptions by covariate shift adaptation", NeurIPS 2020, arXiv 2006.16971.
"""

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uda.data.deep_images import Range
from uda.data.file_tree import pictures_below
from uda.data.files import range_of, read_header, read_image
from uda.data.registry import LAYOUTS, layout_named, list_dataset, root_of
from uda.data.transforms import resize_image
from uda.evaluation.protocols import Protocol, input_size_of
from uda.models.segmenter import Segmenter
from uda.utilities.errors import InputError

BATCH_NORM_IMAGES = 160  # enough for statistics: 20 batches of 8
_LABEL_KINDS = ("gray", "palette", "black and white")
_FEW_VALUES = 40  # of a channel: photographs have more
_BATCH_NORM_BATCH = 8


@torch.no_grad()
def reestimate_batch_norm(
    segmenter: Segmenter, batches: Iterable[Tensor], *, prior: float = 0.0
) -> None:
    """Sets running means and variances to their average over `batches`, each (N, 3, H, W) float RGB
    in [0, 1]; the network is left in evaluation mode.

    With a `prior`, the old statistics count as much as those of so many images: of n new ones, the
    share prior / (prior + n).

    Raises InputError when the network has no batch norm, or the prior is below 0.
    """
    layers = batch_norms(segmenter)
    if not layers:
        raise InputError("this network has no batch norm, so there is nothing to re-estimate")
    check_prior("prior", prior)
    segmenter.eval()
    before = [[old.clone() for old in _statistics(layer)] for layer in layers]
    momenta = [layer.momentum for layer in layers]
    images = 0
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average instead of a moving one
        layer.train()
    for batch in batches:
        segmenter(batch)
        images += len(batch)
    for layer, kept, momentum in zip(layers, before, momenta, strict=True):
        layer.momentum = momentum
        if prior:
            for new, old in zip(_statistics(layer), kept, strict=True):
                new.lerp_(old, prior / (prior + images))
    segmenter.eval()


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """The batch normalization layers of a network that keep running statistics."""
    layers = (layer for layer in network.modules() if isinstance(layer, _BatchNorm))
    return [layer for layer in layers if layer.running_mean is not None]


def check_prior(option: str, prior: float) -> None:
    """Raises InputError, naming the option, for a prior that is no number of images."""
    if not 0 <= prior < math.inf:
        raise InputError(f"{option} is {prior}; allowed: 0 or more images")


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    return mean, variance


def adapt_batch_norm(
    segmenter: Segmenter,
    given: Path,
    protocol: Protocol,
    *,
    data_root: str = "",
    prior: float = 0.0,
) -> str:
    """Re-estimates batch norm on images; returns one line that says so.

    given: a folder, whose images at any depth are read, or a data set, below `data_root` if it is
    one of this library, whose training images are; no label is looked for. At most
    BATCH_NORM_IMAGES are used, evenly spaced over the sorted list and resized by the protocol.
    `prior`: see `reestimate_batch_norm`.
    Raises InputError when there are none or they cannot be batched.
    """
    folder, files = _images_of(given, data_root)
    count = min(len(files), BATCH_NORM_IMAGES)
    if count > _BATCH_NORM_BATCH:
        count -= count % _BATCH_NORM_BATCH  # a small last batch would get the weight of a full one
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, count).round().astype(int)]
    device = next(segmenter.parameters()).device
    image_range = range_of(tuple(files))

    def batches() -> Iterator[Tensor]:
        for start in range(0, count, _BATCH_NORM_BATCH):
            paths = chosen[start : start + _BATCH_NORM_BATCH]
            group = [_pixels(path, protocol, image_range) for path in paths]
            if any(image.shape != group[0].shape for image in group):
                raise InputError(
                    f"--adapt-bn {folder}: images of different sizes cannot be batched; give "
                    "--input-size WxH"
                )
            yield torch.stack(group).to(device).float().div_(255)

    reestimate_batch_norm(segmenter, batches(), prior=prior)
    kept = f", the old statistics counting as {prior:g} more" if prior else ""
    return f"re-estimated on {count} of {len(files)} unlabeled images of {folder}{kept}"


def _images_of(given: Path, data_root: str) -> tuple[str, list[Path]]:
    """The images of a folder or data set, and what to call it."""
    name = str(given)
    if not given.is_dir() and (name in LAYOUTS or given.suffix == ".toml"):
        splits = layout_named(name).splits
        split = "train" if "train" in splits else splits[0]
        samples = list_dataset(root_of(data_root, [name]), name, split, labeled=False)
        return f"{name} {split}", [sample.image for sample in samples]
    files = [given / picture for picture in pictures_below(given)] if given.is_dir() else []
    if not files:
        raise InputError(
            f"--adapt-bn {given}: there is no PNG, JPEG, TIFF, BMP or WebP below it; give a folder "
            "of images, or the name of a data set, whose training images are used"
        )
    return name, files


def _pixels(path: Path, protocol: Protocol, image_range: Range | None) -> Tensor:
    """(3, h, w) uint8 of the image in a file, at the protocol's input size."""
    image = read_image(path, image_range=image_range)
    kind = read_header(path).kind
    if kind in _LABEL_KINDS and np.unique(np.asarray(image)).size <= _FEW_VALUES:
        raise InputError(
            f"--adapt-bn: {path} is {kind} with few values, as label files are: give a folder of "
            "images alone"
        )
    size = input_size_of((image.height, image.width), protocol)
    return torch.from_numpy(resize_image(image, size, protocol.interpolation))
