"""One training sample: decode, resize, crop, mirror. Images stay uint8.

The figures are the experiment log's: bicubic images, nearest labels, a random factor on the size,
up to ten tries for a crop with enough label values. Images that keep their shape may come out
smaller than the crop; they are padded below and to the right, labels with 255.
"""

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from uda.augmentation.policies import PIXELWISE, PolicyName, apply_policy
from uda.data.config import DomainConfig
from uda.data.files import read_image, read_raw_labels
from uda.data.fixed_point import resize_fixed_point
from uda.data.pseudo_label_folder import PseudoLabelFolder
from uda.data.samples import Sample
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

_CROP_TRIES = 10
_MEAN_COLOR = (124, 116, 104)  # RGB: what an ImageNet network's normalization makes about 0

TrainIds = npt.NDArray[np.uint8]

# Pillow's bicubic and bilinear filters grow as an image shrinks. "bilinear_no_antialias", OpenCV's
# and, but for rounding, PyTorch's, reads the two nearest pixels on each axis.
Interpolation = Literal["bicubic", "bilinear", "bilinear_no_antialias", "nearest"]
_OF_PILLOW = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


class CroppedSample(NamedTuple):
    """What one sample contributes to a batch, at crop size (H, W)."""

    image: npt.NDArray[np.uint8]  # (3, H, W) RGB
    labels: TrainIds | None  # (H, W) train ids of its label file; None for a sample without one
    pseudo_labels: TrainIds | None  # (H, W) train ids of a folder of pseudo-labels; None without


def load_cropped(
    sample: Sample,
    domain: DomainConfig,
    *,
    crop: tuple[int, int],
    label_space: LabelSpace,
    pseudo_labels: PseudoLabelFolder | None,
    rng: np.random.Generator,
) -> CroppedSample:
    """Decodes and augments one sample, every random choice sampled from `rng` in a fixed order.

    Labels come from the sample's label file or, for a sample without one, from the folder of
    `pseudo_labels` if there is one. Raises InputError, naming the file, for
    anything that cannot be read.
    """
    image = read_image(sample.image)
    stored_size = (image.height, image.width)
    factor = rng.uniform(*domain.scale)
    size = (round(domain.size[0] * factor), round(domain.size[1] * factor))
    if domain.keep_ratio:
        size = fitted_size(stored_size, domain.size, factor)
    labels = _read_labels(sample, stored_size, size, label_space, pseudo_labels)
    top, left = _choose_crop(labels, size, crop, domain, rng)
    mirrored = domain.mirror and rng.random() < 0.5
    inside = (min(crop[0], size[0]), min(crop[1], size[1]))
    image = _distorted_crop(image, domain.policy, size, top, left, inside, rng)
    pixels = _padded(np.asarray(image), crop, _MEAN_COLOR)
    across = slice(None, None, -1 if mirrored else 1)
    pixels = np.ascontiguousarray(pixels[:, across].transpose(2, 0, 1))
    if labels is None:
        return CroppedSample(pixels, None, None)
    labels = labels[top : top + crop[0], left : left + crop[1]]
    labels = _padded(labels, crop, IGNORE_INDEX)
    labels = np.ascontiguousarray(label_space.mirror(labels) if mirrored else labels)
    if sample.labels is None:
        return CroppedSample(pixels, None, labels)
    return CroppedSample(pixels, labels, None)


def _distorted_crop(
    image: Image.Image,
    policy: PolicyName | None,
    size: tuple[int, int],
    top: int,
    left: int,
    crop: tuple[int, int],
    rng: np.random.Generator,
) -> Image.Image:
    """The crop of the image at `size`, after a sampled change of the policy, if there is one."""
    if policy is None:
        return _resize_crop(image, size, top, left, crop)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    if policy in PIXELWISE:
        return apply_policy(_resize_crop(image, size, top, left, crop), policy, generator)
    # Before the crop, as in the log: equalize and its like look at the whole picture.
    image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return _resize_crop(apply_policy(image, policy, generator), size, top, left, crop)


def _read_labels(
    sample: Sample,
    stored_size: tuple[int, int],
    size: tuple[int, int],
    label_space: LabelSpace,
    pseudo_labels: PseudoLabelFolder | None,
) -> TrainIds | None:
    """Train ids at `size` of a sample whose image is stored at `stored_size`, if it has any."""
    if sample.labels is not None:
        space = sample.space or label_space
        raw = read_raw_labels(
            sample.labels, stored_size, translated=sample.translated, coding=space.coding
        )
        return space.to_train_ids(resize_labels(raw, size), str(sample.labels))
    if pseudo_labels is not None:
        return resize_labels(pseudo_labels.read(sample.stem, stored_size), size)
    return None


def fitted_size(
    stored: tuple[int, int], box: tuple[int, int], factor: float = 1.0
) -> tuple[int, int]:
    """The largest size of the shape of `stored` that fits into `box` times `factor`, where the box
    is upright or landscape as the image is; all (height, width).

    So a box of (512, 2048) gives most photographs a short side of 512, as in mmsegmentation; halves
    are rounded up, as there.
    """
    scale = min(max(box) / max(stored), min(box) / min(stored)) * factor
    return max(1, int(stored[0] * scale + 0.5)), max(1, int(stored[1] * scale + 0.5))


def _padded(
    values: npt.NDArray[np.uint8], size: tuple[int, int], fill: int | tuple[int, ...]
) -> npt.NDArray[np.uint8]:
    """`values` (h, w) or (h, w, 3) with rows below and columns to the right up to `size`."""
    if values.shape[:2] == size:
        return values
    padded = np.full((*size, *values.shape[2:]), fill, np.uint8)
    padded[: values.shape[0], : values.shape[1]] = values
    return padded


def resize_image(
    image: Image.Image, size: tuple[int, int] | None, interpolation: Interpolation = "bicubic"
) -> npt.NDArray[np.uint8]:
    """An RGB picture resized to (height, width), or unchanged, as (3, H, W) uint8."""
    if size is not None and size != (image.height, image.width):
        if interpolation == "bilinear_no_antialias":
            return resize_fixed_point(np.asarray(image), size).transpose(2, 0, 1).copy()
        image = image.resize((size[1], size[0]), _OF_PILLOW[interpolation])
    return np.asarray(image).transpose(2, 0, 1).copy()


def resize_labels(labels: Image.Image, size: tuple[int, int]) -> TrainIds:
    """A label picture resized to (height, width) by nearest, as (H, W) uint8."""
    return np.asarray(labels.resize((size[1], size[0]), Image.Resampling.NEAREST))


def resize_train_ids(train_ids: TrainIds, size: tuple[int, int]) -> TrainIds:
    """(h, w) uint8 resized to (height, width) by nearest."""
    return resize_labels(Image.fromarray(train_ids), size).copy()  # Pillow's memory is read-only


def _resize_crop(
    image: Image.Image, size: tuple[int, int], top: int, left: int, crop: tuple[int, int]
) -> Image.Image:
    """The crop of the resized image, without computing the rest of it."""
    if (image.height, image.width) == size:
        return image.crop((left, top, left + crop[1], top + crop[0]))
    down, across = image.height / size[0], image.width / size[1]
    box = (left * across, top * down, (left + crop[1]) * across, (top + crop[0]) * down)
    return image.resize((crop[1], crop[0]), Image.Resampling.BICUBIC, box=box)


def _choose_crop(
    labels: TrainIds | None,
    size: tuple[int, int],
    crop: tuple[int, int],
    domain: DomainConfig,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """(top, left) of the crop in the middle, or of a uniform one that is sampled again while its
    labels are not what the domain wants. The last try is kept in any case.
    """
    room = (max(0, size[0] - crop[0]), max(0, size[1] - crop[1]))
    if domain.center_crop:
        return room[0] // 2, room[1] // 2
    top = left = 0
    for _ in range(_CROP_TRIES):
        top = int(rng.integers(room[0] + 1))
        left = int(rng.integers(room[1] + 1))
        if not domain.chooses_crops or labels is None or room == (0, 0):
            break
        if _is_wanted(labels[top : top + crop[0], left : left + crop[1]], domain):
            break
    return top, left


def _is_wanted(labels: TrainIds, domain: DomainConfig) -> bool:
    """Whether a crop has enough distinct label values, 255 being one, and no class has more than
    its share of the labeled pixels."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)
    labeled = counts[:IGNORE_INDEX]
    return bool(
        np.count_nonzero(counts) > domain.crop_label_values
        and labeled.any()
        and labeled.max() <= domain.crop_max_share * labeled.sum()
    )
