"""Batch-norm statistics re-estimated on unlabeled images; the weights stay as they are.

Source: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016,
arXiv 1603.04779 (AdaBN).
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
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
def reestimate_batch_norm(segmenter: Segmenter, batches: Iterable[Tensor]) -> None:
    """Sets running means and variances to their average over `batches`, each (N, 3, H, W) float RGB
    in [0, 1]; the network is left in evaluation mode.

    Raises InputError when the network has no batch norm.
    """
    layers = [layer for layer in segmenter.modules() if isinstance(layer, _BatchNorm)]
    if not layers:
        raise InputError("this network has no batch norm, so there is nothing to re-estimate")
    segmenter.eval()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a cumulative average instead of a moving one
        layer.train()
    for images in batches:
        segmenter(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    segmenter.eval()


def adapt_batch_norm(
    segmenter: Segmenter, given: Path, protocol: Protocol, *, data_root: str = ""
) -> str:
    """Re-estimates batch norm on images; returns one line that says so.

    given: a folder, whose images at any depth are read, or a data set, below `data_root` if it is
    one of this library, whose training images are; no label is looked for. At most
    BATCH_NORM_IMAGES are used, evenly spaced over the sorted list and resized by the protocol.
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

    reestimate_batch_norm(segmenter, batches())
    return f"re-estimated on {count} of {len(files)} unlabeled images of {folder}"


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
