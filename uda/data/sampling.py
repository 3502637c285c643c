"""The stream of training batches: a pure function of (preset, seed), from any step on.

Sample k of a run is fixed by (seed, k) alone: which image it is, by the permutation of its pass
over the data; how it is augmented, by a generator seeded with k. So neither the number of loader
processes nor an interruption changes a bit.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset

from uda.data.config import DataConfig, DomainConfig
from uda.data.labels import LabelSpace
from uda.data.pseudo_label_folder import PseudoLabelFolder
from uda.data.samples import Sample
from uda.data.transforms import CroppedSample, load_cropped
from uda.errors import InputError
from uda.views import Batch

_SOURCE, _TARGET = 0, 1  # streams: the two domains draw from unrelated generators
_ORDER, _AUGMENTATION = 0, 1


def position_in_data(k: int, *, count: int, seed: int, stream: int) -> int:
    """Which of `count` images is sample k: each pass over the data is a new permutation."""
    epoch, place = divmod(k, count)
    return int(_permutation(count, seed, stream, epoch)[place])


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, stream: int, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((seed, stream, _ORDER, epoch)).permutation(count)


class TrainingSample(NamedTuple):
    """Sample k of a run: one image of each domain."""

    k: int
    source: CroppedSample
    source_name: str
    target: CroppedSample | None
    target_name: str


class TrainingDataset(Dataset["TrainingSample | InputError"]):
    """The samples of a run by number, each a source image with labels and, with a target, a
    target image."""

    def __init__(
        self,
        data: DataConfig,
        *,
        source: Sequence[Sample],
        target: Sequence[Sample],
        label_space: LabelSpace,
        pseudo_labels: PseudoLabelFolder | None,
        seed: int,
    ) -> None:
        self.data = data
        self.source = source
        self.target = target
        self.label_space = label_space
        self.pseudo_labels = pseudo_labels
        self.seed = seed

    def __getitem__(self, k: int) -> TrainingSample | InputError:
        """Sample k. A file that cannot be used comes back as the error it caused: raised in a
        loader process, it would reach the user wrapped in that process's traceback."""
        try:
            source, source_name = self._load(k, _SOURCE, self.source, self.data.source)
            target, target_name = None, ""
            if self.data.target is not None:
                target, target_name = self._load(k, _TARGET, self.target, self.data.target)
        except InputError as error:
            return error
        return TrainingSample(k, source, source_name, target, target_name)

    def _load(
        self, k: int, stream: int, samples: Sequence[Sample], domain: DomainConfig
    ) -> tuple[CroppedSample, str]:
        place = position_in_data(k, count=len(samples), seed=self.seed, stream=stream)
        sample = samples[place]
        labeled_by_folder = stream == _TARGET and self.pseudo_labels is not None
        cropped = load_cropped(
            sample,
            domain,
            crop=self.data.crop,
            label_space=self.label_space,
            pseudo_labels=self.pseudo_labels if labeled_by_folder else None,
            rng=np.random.default_rng((self.seed, stream, _AUGMENTATION, k)),
        )
        return cropped, sample.name


def collate(samples: Sequence[TrainingSample | InputError]) -> Batch | InputError:
    """The samples of one step as a Batch on the host, or the first error among them."""
    good = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        good.append(sample)
    targets = [sample.target for sample in good if sample.target is not None]
    pseudo_labels = [target.labels for target in targets if target.labels is not None]
    source_images = _stack([sample.source.image for sample in good])
    return Batch(
        source_images=source_images,
        source_labels=_stack([s.source.labels for s in good if s.source.labels is not None]),
        target_images=_stack([t.image for t in targets]) if targets else source_images[:0],
        target_pseudo_labels=_stack(pseudo_labels) if pseudo_labels else None,
        indices=tuple(sample.k for sample in good),
        source_names=tuple(sample.source_name for sample in good),
        target_names=tuple(sample.target_name for sample in good),
    )


def batches(
    dataset: TrainingDataset, *, batch_size: int, first_step: int, steps: int, workers: int
) -> Iterator[Batch]:
    """The batches of steps `first_step` to `steps`, in order. Raises the InputError of a sample
    that cannot be used."""
    loader = DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=range(first_step * batch_size, steps * batch_size),
        collate_fn=collate,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # the loader would draw from the global one otherwise
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _stack(arrays: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
    return torch.from_numpy(np.stack(arrays))
