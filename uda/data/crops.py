"""Which crop of an image is taken: chance, until its labels are such."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.config import DomainConfig, RareClassConfig
from uda.labels.spaces import IGNORE_INDEX

TrainIds = npt.NDArray[np.uint8]


class ShownClass(NamedTuple):
    """A class that a crop is to show."""

    train_id: int
    rules: RareClassConfig


class Place(NamedTuple):
    """Where a crop is in the resized image, and whether it is turned left to right."""

    top: int
    left: int
    mirrored: bool


def choose_place(
    labels: TrainIds | None,
    size: tuple[int, int],
    crop: tuple[int, int],
    domain: DomainConfig,
    rng: np.random.Generator,
    shown: ShownClass | None,
) -> Place:
    """A crop by the domain's rules, and whether it is mirrored; sampled again while it does not
    show the class `shown`. The last try is kept in any case."""
    tries = 0 if shown is None or domain.center_crop else shown.rules.tries
    joint = tries > 0 and shown is not None and shown.rules.joint_tries
    for remaining in range(tries, -1, -1):
        top, left = _choose_crop(labels, size, crop, domain, rng, tries=1 if joint else None)
        place = Place(top, left, domain.mirror and bool(rng.random() < 0.5))
        if not remaining or labels is None or shown is None:
            break
        inside = labels[top : top + crop[0], left : left + crop[1]]
        if np.count_nonzero(inside == shown.train_id) <= shown.rules.min_crop_pixels:
            continue
        if not joint or not domain.chooses_crops or _is_wanted(inside, domain):
            break
    return place


def _choose_crop(
    labels: TrainIds | None,
    size: tuple[int, int],
    crop: tuple[int, int],
    domain: DomainConfig,
    rng: np.random.Generator,
    *,
    tries: int | None = None,
) -> tuple[int, int]:
    """(top, left) of the crop in the middle, or of a uniform one that is sampled again while its
    labels are not what the domain wants. The last of `tries`, by default those of the domain, is
    kept in any case.
    """
    room = (max(0, size[0] - crop[0]), max(0, size[1] - crop[1]))
    if domain.center_crop:
        return room[0] // 2, room[1] // 2
    top = left = 0
    for remaining in range((tries or domain.crop_tries) - 1, -1, -1):
        top = int(rng.integers(room[0] + 1))
        left = int(rng.integers(room[1] + 1))
        if not remaining or not domain.chooses_crops or labels is None or room == (0, 0):
            break
        if _is_wanted(labels[top : top + crop[0], left : left + crop[1]], domain):
            break
    return top, left


def _is_wanted(labels: TrainIds, domain: DomainConfig) -> bool:
    """Whether a crop has enough distinct label values, 255 being one, and no class has more than
    its share of the labeled pixels."""
    # Pillow counts bytes three times as fast as numpy.
    counts = np.array(Image.fromarray(labels).histogram())
    labeled = counts[:IGNORE_INDEX]
    if np.count_nonzero(counts) <= domain.crop_label_values or not labeled.any():
        return False
    most = domain.crop_max_share * labeled.sum()
    largest = labeled.max()
    return bool(largest < most if domain.crop_share_rule == "below" else largest <= most)
