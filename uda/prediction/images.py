"""Images in memory or in files -> the classes of their pixels."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from uda.data.deep_images import DEEP_GRAY
from uda.data.file_tree import pictures_below
from uda.data.files import range_of, read_image
from uda.data.transforms import resize_image
from uda.evaluation.ensembles import Network
from uda.evaluation.evaluate import EvaluationConfig, predictions_of
from uda.evaluation.views import Views, view_sizes
from uda.utilities.errors import InputError, require

Picture = str | PathLike[str] | Image.Image | npt.NDArray[np.uint8] | Tensor
Pictures = Picture | Sequence[Picture]


class PixelLabels(NamedTuple):
    """What a network makes of one image."""

    name: str  # of its file, or its position
    labels: Tensor  # (H, W) int64 on the CPU, the index of the most probable class
    confidence: Tensor  # (H, W) float32 on the CPU, its softmax probability


def label_pictures(
    network: Network,
    images: Pictures,
    *,
    config: EvaluationConfig,
    mirrored: Sequence[int] | None = None,
) -> list[PixelLabels]:
    """The classes of every image's pixels at its own size, in the order given.

    images: one or several of: an RGB picture of Pillow, an array (H, W, 3) or (N, H, W, 3) uint8,
    a tensor (3, H, W) or (N, 3, H, W), uint8 or float in [0, 1], a file's path, a folder's path.
    Floats are rounded to 8 bits, as stored images are. Raises InputError for anything else, and
    when a file cannot be read.
    """
    config = replace(config, label_size=None)
    read = (_views(name, image, config) for name, image in _pictures(images))
    found = []
    for views, prediction in predictions_of(
        network, read, config=config, confidence=True, mirrored=mirrored
    ):
        assert prediction.confidence is not None, "it was asked for"
        found.append(
            PixelLabels(views.stem, prediction.labels.cpu(), prediction.confidence.float().cpu())
        )
    require(bool(found), "there is no image to predict: give at least one")
    return found


def _views(name: str, image: Image.Image, config: EvaluationConfig) -> Views:
    size = (image.height, image.width)
    sizes = view_sizes(size, config)
    seen = [torch.from_numpy(resize_image(image, s, config.interpolation)) for s in sizes]
    return Views(name, seen, None, size)


def _pictures(images: Pictures) -> Iterator[tuple[str, Image.Image]]:
    """Each image as an RGB picture, with its name."""
    several: Sequence[Picture]
    if isinstance(images, (str, PathLike)):
        folder = Path(images)
        several = [folder]
        if folder.is_dir():
            names = pictures_below(folder)
            image_range = range_of(tuple(folder / name for name in names))
            for name in names:
                yield name, read_image(folder / name, upright=True, image_range=image_range)
            return
    elif isinstance(images, (Tensor, np.ndarray)):
        several = list(images) if images.ndim == 4 else [images]
    else:
        several = [images] if isinstance(images, Image.Image) else images
    files = (Path(image) for image in several if isinstance(image, (str, PathLike)))
    image_range = range_of(tuple(files))
    for index, image in enumerate(several):
        if isinstance(image, (str, PathLike)):
            yield str(image), read_image(Path(image), upright=True, image_range=image_range)
        elif isinstance(image, Image.Image):
            require(
                image.mode not in DEEP_GRAY,
                f"image {index} has mode {image.mode}, more than 8 bits: scale it to 8 bits, or "
                "give its file",
            )
            yield str(index), image.convert("RGB")
        else:
            yield str(index), Image.fromarray(_bytes(image, index))


def _bytes(image: object, index: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 of an array or a tensor."""
    allowed = (
        "allowed: arrays (H, W, 3) uint8; tensors (3, H, W), uint8 or float in [0, 1]; pictures of "
        "Pillow; paths"
    )
    if isinstance(image, Tensor):
        pixels = image.detach().cpu()
        if pixels.is_floating_point():
            require(
                bool(((pixels >= 0) & (pixels <= 1)).all()),
                f"image {index} has values outside 0..1: divide by 255, or give uint8; {allowed}",
            )
            pixels = (255 * pixels).round().to(torch.uint8)
        if pixels.ndim == 3 and pixels.shape[0] == 3 and pixels.dtype == torch.uint8:
            return pixels.permute(1, 2, 0).contiguous().numpy()
        raise InputError(f"image {index} is {image.dtype} {tuple(image.shape)}; {allowed}")
    if isinstance(image, np.ndarray):
        if image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8:
            return np.ascontiguousarray(image)
        raise InputError(f"image {index} is {image.dtype} {image.shape}; {allowed}")
    raise InputError(f"image {index} is a {type(image).__name__}; {allowed}")
