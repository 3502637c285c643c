"""One training sample: decode, resize, crop, mirror. Images stay uint8.

The figures are the experiment log's: bicubic images, nearest labels, a random factor on the size,
up to ten tries for a crop with enough label values.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from uda.data.config import DomainConfig
from uda.data.files import read_image, read_raw_labels
from uda.data.labels import IGNORE_INDEX, LabelSpace
from uda.data.pseudo_label_folder import PseudoLabelFolder
from uda.data.samples import Sample
from uda.policies import apply_policy

_CROP_TRIES = 10

TrainIds = npt.NDArray[np.uint8]


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
    """Decodes and augments one sample, every random choice drawn from `rng` in a fixed order.

    Labels come from the sample's label file or, for a sample without one, from the folder of
    `pseudo_labels` if there is one. Raises InputError, naming the file, for
    anything that cannot be read.
    """
    image = read_image(sample.image)
    stored_size = (image.height, image.width)
    factor = rng.uniform(*domain.scale)
    size = (round(domain.size[0] * factor), round(domain.size[1] * factor))
    labels = _read_labels(sample, stored_size, size, label_space, pseudo_labels)
    top, left = _choose_crop(labels, size, crop, domain.crop_label_values, rng)
    mirrored = domain.mirror and rng.random() < 0.5
    if domain.policy is not None:
        # Before the crop, as in the log: equalize and its like look at the whole picture.
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        image = apply_policy(image, domain.policy, generator)
    pixels = np.asarray(_resize_crop(image, size, top, left, crop))
    across = slice(None, None, -1 if mirrored else 1)
    pixels = np.ascontiguousarray(pixels[:, across].transpose(2, 0, 1))
    if labels is None:
        return CroppedSample(pixels, None, None)
    labels = np.ascontiguousarray(labels[top : top + crop[0], left : left + crop[1]][:, across])
    if sample.labels is None:
        return CroppedSample(pixels, None, labels)
    return CroppedSample(pixels, labels, None)


def _read_labels(
    sample: Sample,
    stored_size: tuple[int, int],
    size: tuple[int, int],
    label_space: LabelSpace,
    pseudo_labels: PseudoLabelFolder | None,
) -> TrainIds | None:
    """Train ids at `size` of a sample whose image is stored at `stored_size`, if it has any."""
    if sample.labels is not None:
        raw = read_raw_labels(sample.labels, stored_size, translated=sample.translated)
        return label_space.to_train_ids(resize_labels(raw, size), str(sample.labels))
    if pseudo_labels is not None:
        return resize_labels(pseudo_labels.read(sample.stem, stored_size), size)
    return None


def resize_image(image: Image.Image, size: tuple[int, int] | None) -> npt.NDArray[np.uint8]:
    """An RGB picture resized to (height, width), or as it is, as (3, H, W) uint8."""
    if size is not None and size != (image.height, image.width):
        image = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image).transpose(2, 0, 1).copy()


def resize_labels(labels: Image.Image, size: tuple[int, int]) -> TrainIds:
    """A label picture resized to (height, width) by nearest, as (H, W) uint8."""
    return np.asarray(labels.resize((size[1], size[0]), Image.Resampling.NEAREST))


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
    more_than: int,
    rng: np.random.Generator,
) -> tuple[int, int]:
    """(top, left) of a uniform crop; drawn again while its labels have too few distinct values.

    255 counts as a value. The last try is kept whatever it holds.
    """
    top = left = 0
    for _ in range(_CROP_TRIES):
        top = int(rng.integers(size[0] - crop[0] + 1))
        left = int(rng.integers(size[1] - crop[1] + 1))
        if not more_than or labels is None or crop == size:
            break
        inside = labels[top : top + crop[0], left : left + crop[1]]
        if np.count_nonzero(np.bincount(inside.ravel(), minlength=IGNORE_INDEX + 1)) > more_than:
            break
    return top, left
