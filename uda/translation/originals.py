"""The images that are translated, read ahead by loader processes."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from uda.data.files import read_image
from uda.data.samples import Sample
from uda.data.transforms import resize_image
from uda.translation.translators import Partners
from uda.utilities.errors import InputError
from uda.utilities.loading import read_ahead


class Originals(Dataset[tuple[Tensor, Tensor | None] | InputError]):
    """The images to translate, (3, H, W) uint8, each with its partner, if any, at the same size."""

    def __init__(
        self, samples: Sequence[Sample], width: int | None, partners: Partners | None
    ) -> None:
        self.samples = samples
        self.width = width
        self.partners = partners

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor | None] | InputError:
        sample = self.samples[index]
        try:
            picture = _picture(sample)
            size = (picture.height, picture.width)
            if self.width is not None:
                size = (max(1, round(size[0] * self.width / size[1])), self.width)
            image = torch.from_numpy(resize_image(picture, size))
            if self.partners is None:
                return image, None
            partner = _picture(self.partners.of(sample.name))
            return image, torch.from_numpy(resize_image(partner, size))
        except InputError as error:
            return error


def _picture(sample: Sample) -> Any:  # noqa: ANN401  # Pillow's picture; this room does not know Pillow
    return read_image(sample.image, upright=bool(sample.upright), image_range=sample.image_range)


def _only(samples: list[Any]) -> Any:  # noqa: ANN401  # whatever the data set gives
    return samples[0]


def read_originals(originals: Originals, workers: int) -> Iterator[tuple[Tensor, Tensor | None]]:
    """All of `originals` in order; raises the InputError of the first that cannot be read."""
    batches = [[index] for index in range(len(originals.samples))]
    for found in read_ahead(originals, batches, workers=workers, collate=_only):
        if isinstance(found, InputError):
            raise found
        yield found


def images_of(
    samples: Sequence[Sample], width: int | None, *, device: torch.device, workers: int
) -> Iterator[Tensor]:
    """The images (3, H, W) float RGB in [0, 1] on the device, resized (bicubic) to `width` and the
    height that keeps their ratio; raises the InputError of the first that cannot be read."""
    for image, _ in read_originals(Originals(samples, width, None), workers):
        yield image.to(device).float() / 255
