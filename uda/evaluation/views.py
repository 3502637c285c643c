"""Images as a network reads them, and their labels: read ahead, in order."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from uda.data.files import no_memory_to_read, read_image
from uda.data.label_files import read_train_ids
from uda.data.samples import Sample
from uda.data.transforms import resize_image, resize_train_ids
from uda.evaluation.protocols import Protocol, Size, input_size_of
from uda.labels.spaces import LabelSpace
from uda.utilities.errors import InputError, require, shown
from uda.utilities.host_memory import is_out_of_memory
from uda.utilities.loading import read_ahead


class Views(NamedTuple):
    """One image as the network reads it, and its labels."""

    stem: str
    images: list[Tensor]  # (3, h, w) uint8, one per scale
    labels: Tensor | None  # (H, W) uint8 train ids
    size: Size  # (H, W) of the labels: the stored image's, unless the protocol says otherwise

    def too_large(self, batch: int = 1) -> str:
        """What is said when the network finds no room for this image, or a `batch` of such."""
        fewer = "--batch 1, " if batch > 1 else ""
        setting = "batch=1" if batch > 1 else "window=512,512"
        seen = ", ".join(f"{image.shape[2]}x{image.shape[1]}" for image in self.images)
        return (
            f"image {shown(self.stem)}, which the network reads at {seen}, does not fit into "
            f"memory; use one of these: {fewer}--window 512x512, a smaller --input-size, "
            f"fewer --scales; in training --set evaluation.{setting}"
        )


def view_sizes(stored: Size, config: Protocol) -> list[Size]:
    """What the network sees an image of size `stored` at: one (height, width) per scale.

    Raises InputError when a scale leaves no pixel of it.
    """
    base = input_size_of(stored, config)
    sizes = [(round(base[0] * s), round(base[1] * s)) for s in config.scales]
    require(
        min(map(min, sizes)) > 0,
        f"evaluation.scales {config.scales}: {base[1]}x{base[0]} times the lowest leaves no pixel; "
        "use larger scales",
    )
    return sizes


class EvaluationDataset(Dataset[Views | InputError]):
    """Images at every scale of the protocol, in the order of `samples`."""

    def __init__(
        self, samples: Sequence[Sample], *, config: Protocol, label_space: LabelSpace
    ) -> None:
        self.samples = samples
        self.config = config
        self.label_space = label_space

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Views | InputError:
        """Image `index`, or the error that it caused (see TrainingDataset)."""
        sample = self.samples[index]
        try:
            image = read_image(
                sample.image, upright=bool(sample.upright), image_range=sample.image_range
            )
            size = (image.height, image.width)
            sizes = view_sizes(size, self.config)
            how = self.config.interpolation
            images = [torch.from_numpy(resize_image(image, scaled, how)) for scaled in sizes]
            labels = None
            if sample.labels is not None:
                train_ids = read_train_ids(sample.labels, size, sample.space or self.label_space)
                if self.config.label_size is not None:
                    train_ids = resize_train_ids(train_ids, self.config.label_size)
                labels = torch.from_numpy(train_ids)
        except InputError as error:
            return error
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return no_memory_to_read(sample.image)
        return Views(sample.stem, images, labels, self.config.label_size or size)


def _only(items: list[Views | InputError]) -> Views | InputError:
    """The one item of a batch, unchanged: the loader's own conversion would make lists of it."""
    (item,) = items
    return item


def read_views(
    samples: Sequence[Sample],
    config: Protocol,
    label_space: LabelSpace,
    *,
    workers: int,
    unreadable: dict[str, str] | None = None,
    pinned: bool = False,
) -> Iterator[Views]:
    """Each image of `samples`, at the protocol's sizes; `pinned`: in memory that a GPU copies from
    while others compute.

    A file that cannot be used raises its InputError or, if there is a dict of `unreadable` files,
    is left out and added to it: the message by the sample's stem.
    """
    dataset = EvaluationDataset(samples, config=config, label_space=label_space)
    found = read_ahead(dataset, workers=workers, collate=_only, pin_memory=pinned)
    for sample, views in zip(samples, found, strict=True):
        if not isinstance(views, InputError):
            height, width = views.size  # some versions of torch make a list of it where they pin
            yield views._replace(size=(height, width))
        elif unreadable is None:
            raise views
        else:
            unreadable[sample.stem] = str(views)
