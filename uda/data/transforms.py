"""One training sample: decode, resize, crop, mirror. Images stay uint8.

By default as in the experiment log: bicubic images, nearest labels, a random factor on the size,
up to ten tries for a crop with enough label values. Images that keep their shape may come out
smaller than the crop; they are padded below and to the right, labels with 255.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from uda.augmentation.policies import PIXELWISE, apply_policy
from uda.data.config import DomainConfig
from uda.data.crops import Place, ShownClass, TrainIds, choose_place
from uda.data.files import StoredImage, read_image, stored_image
from uda.data.fixed_point import resize_fixed_point
from uda.data.label_files import read_raw_labels, require_fit
from uda.data.pixel_cache import HeldPicture, PixelCache, held_picture
from uda.data.pseudo_label_folder import PseudoLabelFolder
from uda.data.samples import Sample
from uda.labels.spaces import IGNORE_INDEX, Coding, LabelSpace

_MEAN_COLOR = (124, 116, 104)  # RGB: what an ImageNet network's normalization makes about 0

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
    valid: npt.NDArray[np.bool_] | None = None  # (H, W) outside DomainConfig.ignored_borders


def load_cropped(
    sample: Sample,
    domain: DomainConfig,
    *,
    crop: tuple[int, int],
    label_space: LabelSpace,
    pseudo_labels: PseudoLabelFolder | None,
    rng: np.random.Generator,
    shown: ShownClass | None = None,
    cache: PixelCache | None = None,
    decoded: HeldPicture | None = None,
) -> CroppedSample:
    """Decodes and augments one sample, every random choice sampled from `rng` in a fixed order.

    Labels come from the sample's label file or, for a sample without one, from the folder of
    `pseudo_labels` if there is one. Crop and mirror image are sampled until they show the class
    `shown`, if its rules give up no earlier. `cache`: where pixels are kept that were decoded
    once, which changes no bit. `decoded`: its image, see `decoded_once`. Raises InputError,
    naming the file, for anything that cannot be read.
    """
    opened = _opened(sample, domain, cache) if decoded is None else nullcontext(decoded)
    with opened as stored:
        size = _size_in(stored.size, domain, rng.uniform(*domain.scale))
        labels = _read_labels(sample, stored.size, size, label_space, pseudo_labels, cache)
        place = choose_place(labels, size, crop, domain, rng, shown)
        top, left, mirrored = place
        inside = (min(crop[0], size[0]), min(crop[1], size[1]))
        whole = domain.policy is not None and domain.policy not in PIXELWISE
        last = size[0] if whole else top + inside[0]
        image = stored.picture(_rows_for(last, size[0], stored.held[0], domain.interpolation))
    image = _distorted_crop(image, stored.held, domain, size, top, left, inside, rng)
    pixels = _padded(np.asarray(image), crop, _MEAN_COLOR)
    across = slice(None, None, -1 if mirrored else 1)
    pixels = np.ascontiguousarray(pixels[:, across].transpose(2, 0, 1))
    valid = _valid_crop(domain.ignored_borders, stored.size, size, crop, place)
    if labels is None:
        return CroppedSample(pixels, None, None, valid)
    labels = labels[top : top + crop[0], left : left + crop[1]]
    labels = _padded(labels, crop, IGNORE_INDEX)
    labels = np.ascontiguousarray(label_space.mirror(labels) if mirrored else labels)
    if sample.labels is None:
        return CroppedSample(pixels, None, labels, valid)
    return CroppedSample(pixels, labels, None, valid)


def decoded_once(sample: Sample) -> HeldPicture:
    """The whole image of a sample, for several crops of it; InputError as `read_image`."""
    image = read_image(sample.image, upright=bool(sample.upright), image_range=sample.image_range)
    size = (image.height, image.width)
    return HeldPicture(size, lambda: (image, size), image)


def _opened(
    sample: Sample, domain: DomainConfig, cache: PixelCache | None
) -> AbstractContextManager[StoredImage | HeldPicture]:
    """The image of a sample, decoded when asked for; a cache may hold it resized."""
    upright, image_range = bool(sample.upright), sample.image_range
    if cache is None:
        return stored_image(sample.image, upright=upright, image_range=image_range)
    low, high = domain.scale
    how = [domain.size, low, domain.keep_ratio, domain.interpolation] if low == high else None

    def decoded() -> tuple[Image.Image, tuple[int, int]]:
        image = read_image(sample.image, upright=upright, image_range=image_range)
        stored = (image.height, image.width)
        return (image if how is None else _shrunk(image, stored, domain)), stored

    settings: list[object] = ["image", upright, image_range, how]
    return nullcontext(held_picture(cache, sample.image, settings, decoded))


def _shrunk(image: Image.Image, stored: tuple[int, int], domain: DomainConfig) -> Image.Image:
    """The image at the one size that all samples of it have, if it is smaller then and a crop of
    it has the bits of `_resize_crop`; else as it is."""
    size = _size_in(stored, domain, domain.scale[0])
    # Pillow is told a crop's borders in numbers of 24 bits: here they are exact.
    exact = all(
        2**8 * old % new == 0 and old < 2**15 for old, new in zip(stored, size, strict=True)
    )
    exact |= domain.interpolation == "bilinear_no_antialias"
    if not exact or size[0] * size[1] >= stored[0] * stored[1]:
        return image
    return _resize_crop(image, stored, size, 0, 0, size, domain.interpolation)


def _size_in(stored: tuple[int, int], domain: DomainConfig, factor: float) -> tuple[int, int]:
    """(height, width) at which a domain shows an image of `stored` size, for one random factor."""
    if domain.keep_ratio:
        return fitted_size(stored, domain.size, factor)
    return round(domain.size[0] * factor), round(domain.size[1] * factor)


def _distorted_crop(
    image: Image.Image,
    stored: tuple[int, int],
    domain: DomainConfig,
    size: tuple[int, int],
    top: int,
    left: int,
    crop: tuple[int, int],
    rng: np.random.Generator,
) -> Image.Image:
    """The crop of the image of `stored` size at `size`, after a sampled change of the policy, if
    there is one."""
    policy, how = domain.policy, domain.interpolation
    if policy is None:
        return _resize_crop(image, stored, size, top, left, crop, how)
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    if policy in PIXELWISE:
        resized = _resize_crop(image, stored, size, top, left, crop, how)
        return apply_policy(resized, policy, generator)
    # Before the crop, as in the log: equalize and its like look at the whole picture.
    image = apply_policy(_resize_crop(image, stored, size, 0, 0, size, how), policy, generator)
    return image.crop((left, top, left + crop[1], top + crop[0]))


def _read_labels(
    sample: Sample,
    stored_size: tuple[int, int],
    size: tuple[int, int],
    label_space: LabelSpace,
    pseudo_labels: PseudoLabelFolder | None,
    cache: PixelCache | None,
) -> TrainIds | None:
    """Train ids at `size` of a sample whose image is stored at `stored_size`, if it has any."""
    if sample.labels is not None:
        space = sample.space or label_space
        raw = _raw_labels(sample.labels, space.coding, cache)
        require_fit(raw, sample.labels, stored_size, translated=sample.translated)
        return space.to_train_ids(resize_labels(raw, size), str(sample.labels))
    if pseudo_labels is not None:
        return resize_labels(pseudo_labels.read(sample.stem, stored_size, cache), size)
    return None


def _raw_labels(path: Path, coding: Coding, cache: PixelCache | None) -> Image.Image:
    """Raw label ids at the size of their file."""
    if cache is None:
        return read_raw_labels(path, coding=coding)

    def decoded() -> tuple[Image.Image, tuple[int, int]]:
        labels = read_raw_labels(path, coding=coding)
        return labels, (labels.height, labels.width)

    return held_picture(cache, path, ["labels", repr(coding)], decoded).picture()


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


def _rows_for(last: int, height: int, stored: int, interpolation: Interpolation) -> int:
    """How many of an image's `stored` rows the first `last` ones are made of when it is resized to
    `height`."""
    if height == stored:
        return last
    down = stored / height
    # Each filter of Pillow's reaches so far, in new rows where the image shrinks, else in old ones.
    reach = 2 if interpolation == "bicubic" else 1
    return min(stored, math.ceil(last * down + reach * max(down, 1)) + 1)


def _resize_crop(
    image: Image.Image,
    stored: tuple[int, int],
    size: tuple[int, int],
    top: int,
    left: int,
    crop: tuple[int, int],
    interpolation: Interpolation,
) -> Image.Image:
    """The crop of the resized image, without computing the rest of it; of the image of `stored`
    size, only those rows are needed that `_rows_for` counts."""
    if stored == size:
        return image.crop((left, top, left + crop[1], top + crop[0]))
    if interpolation == "bilinear_no_antialias":
        part = (slice(top, top + crop[0]), slice(left, left + crop[1]))
        return Image.fromarray(resize_fixed_point(np.asarray(image), size, part, stored[0]))
    down, across = stored[0] / size[0], stored[1] / size[1]
    box = (left * across, top * down, (left + crop[1]) * across, (top + crop[0]) * down)
    return image.resize((crop[1], crop[0]), _OF_PILLOW[interpolation], box=box)


def _valid_crop(
    borders: tuple[float, float, float, float] | None,
    stored: tuple[int, int],
    size: tuple[int, int],
    crop: tuple[int, int],
    place: Place,
) -> npt.NDArray[np.bool_] | None:
    """Where the crop (H, W) of an image of `stored` size is inside the borders; None without any.

    As if a picture of the borders were resized by nearest, cropped, padded and mirrored with the
    image; that picture is made of a column and a row.
    """
    if borders is None:
        return None
    sides = []
    for axis in (0, 1):
        length = stored[axis]
        first, last = (
            int(b * length) if b < 1 else int(b) for b in borders[2 * axis : 2 * axis + 2]
        )
        inside = np.zeros((length, 1), np.uint8)
        inside[first : max(length - last, 0)] = 1
        inside = resize_train_ids(inside, (size[axis], 1))[place[axis] : place[axis] + crop[axis]]
        sides.append(_padded(inside, (crop[axis], 1), 0)[:, 0].astype(bool))
    rows, columns = sides
    valid = rows[:, None] & columns
    return np.ascontiguousarray(valid[:, ::-1] if place.mirrored else valid)
