"""The stream of training batches: a pure function of (preset, seed), from any step on.

Sample k of a run is fixed by (seed, k) alone: which data set it is of, where these have weights
(uda/data/set_choice.py); which image it is, by the permutation of its pass over the data or, with
rare class sampling, by a generator seeded with k; how it is augmented, by another one. So neither
the number of loader processes nor an interruption changes a bit.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from uda.data.batch import Batch
from uda.data.config import DataConfig, DomainConfig
from uda.data.crops import ShownClass
from uda.data.pixel_cache import HeldPicture, PixelCache
from uda.data.pseudo_label_folder import PseudoLabelFolder
from uda.data.rare_classes import RareClasses
from uda.data.samples import Sample
from uda.data.set_choice import set_choice
from uda.data.transforms import CroppedSample, decoded_once, load_cropped
from uda.labels.spaces import LabelSpace
from uda.utilities.distributed import own_batch
from uda.utilities.errors import InputError
from uda.utilities.loading import read_ahead

_SOURCE, _TARGET, _SECOND = 0, 1, 2  # streams: each has its own generators
_ORDER, _AUGMENTATION, _CHOICE = 0, 1, 2


def position_in_data(
    k: int, *, count: int, seed: int, stream: int, of_set: tuple[int, ...] = ()
) -> int:
    """Which of `count` images is sample k: each pass over the data is a new permutation. `of_set`:
    the place of the data set, where each has its own passes."""
    epoch, place = divmod(k, count)
    return int(_permutation(count, (seed, stream, _ORDER, epoch, *of_set))[place])


@lru_cache(maxsize=16)
def _permutation(count: int, seeds: tuple[int, ...]) -> npt.NDArray[np.int64]:
    return np.random.default_rng(seeds).permutation(count)


class TrainingSample(NamedTuple):
    """Sample k of a run: one image of each domain that the preset has."""

    k: int
    source: CroppedSample | None
    source_name: str
    target: CroppedSample | None
    target_name: str
    target_second: CroppedSample | None  # the same picture in another crop


class TrainingDataset(Dataset["TrainingSample | InputError"]):
    """The samples of a run by number, each an image of every domain of the preset."""

    def __init__(
        self,
        data: DataConfig,
        *,
        source: Sequence[Sample],
        target: Sequence[Sample],
        label_space: LabelSpace,
        pseudo_labels: PseudoLabelFolder | None,
        seed: int,
        rare_classes: Sequence[RareClasses] = (),
    ) -> None:
        self.data = data
        self.source = source
        self.target = target
        self.label_space = label_space
        self.pseudo_labels = pseudo_labels
        self.seed = seed
        self.cache = PixelCache.of(data)
        self.rare_classes = rare_classes  # of all source images, or of each data set's
        self.sets = tuple(  # of source and target, where they have weights
            set_choice(domain, samples, seed=seed, stream=stream)
            for domain, samples, stream in (
                (data.source, source, _SOURCE),
                (data.target, target, _TARGET),
            )
        )

    def __getitem__(self, k: int) -> TrainingSample | InputError:
        """Sample k. A file that cannot be used comes back as the error it caused: raised in a
        loader process, it would reach the user wrapped in that process's traceback."""
        source = target = second = None
        source_name = target_name = ""
        try:
            if self.data.source is not None:
                sample, shown = self._choose(k, _SOURCE, self.source)
                source_name = sample.name
                source = self._crop(k, _SOURCE, sample, self.data.source, shown)
            if self.data.target is not None:
                sample, _ = self._choose(k, _TARGET, self.target)
                target_name = sample.name
                twice = self.data.second_target_view is not None
                decoded = decoded_once(sample) if twice and self.cache is None else None
                target = self._crop(k, _TARGET, sample, self.data.target, decoded=decoded)
                if self.data.second_target_view is not None:
                    policy = self.data.second_target_view.policy
                    domain = replace(
                        self.data.target,
                        policy=policy,
                        crop_label_values=0,
                        crop_max_share=1.0,
                        crop_share_rule="at_most",
                        ignored_borders=None,
                    )
                    unlabeled = sample._replace(labels=None)
                    second = self._crop(k, _SECOND, unlabeled, domain, decoded=decoded)
        except InputError as error:
            return error
        return TrainingSample(k, source, source_name, target, target_name, second)

    def _choose(
        self, k: int, stream: int, samples: Sequence[Sample]
    ) -> tuple[Sample, ShownClass | None]:
        """The image that sample k is, and the class that it was chosen for, if it was for one."""
        choice = self.sets[stream]
        chosen = None if choice is None else choice.of(k)
        members = None if choice is None or chosen is None else choice.members[chosen.place]
        count = len(samples if members is None else members)
        if self.rare_classes:
            rng = np.random.default_rng((self.seed, stream, _CHOICE, k))
            if stream == _SOURCE:
                rare = self.rare_classes[0 if chosen is None else chosen.place]
                place, shown = rare.choose(rng)
                return samples[place], shown
        if self.rare_classes and self.rare_classes[0].rules.target_with_replacement:
            place = int(rng.integers(count))
        else:
            place = position_in_data(
                k if chosen is None else chosen.before,
                count=count,
                seed=self.seed,
                stream=stream,
                of_set=() if chosen is None else (chosen.place,),
            )
        return samples[place if members is None else members[place]], None

    def _crop(
        self,
        k: int,
        stream: int,
        sample: Sample,
        domain: DomainConfig,
        shown: ShownClass | None = None,
        decoded: HeldPicture | None = None,
    ) -> CroppedSample:
        return load_cropped(
            sample,
            domain,
            crop=self.data.crop_of(domain),
            label_space=self.label_space,
            pseudo_labels=self.pseudo_labels if stream == _TARGET else None,
            rng=np.random.default_rng((self.seed, stream, _AUGMENTATION, k)),
            shown=shown,
            cache=self.cache,
            decoded=decoded,
        )


def collate(samples: Sequence[TrainingSample | InputError]) -> Batch | InputError:
    """The samples of one step as a Batch on the host, or the first error among them."""
    good = []
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
        good.append(sample)
    sources = [sample.source for sample in good if sample.source is not None]
    targets = [sample.target for sample in good if sample.target is not None]
    seconds = [sample.target_second for sample in good if sample.target_second is not None]
    size = (sources or targets)[0].image.shape[1:]
    no_images, no_labels = torch.empty(0, 3, *size).byte(), torch.empty(0, *size).byte()
    source_images, source_labels = (
        _stack(s.image for s in sources),
        _stack(s.labels for s in sources),
    )
    target_images = _stack(target.image for target in targets)
    return Batch(
        source_images=no_images if source_images is None else source_images,
        source_labels=no_labels if source_labels is None else source_labels,
        target_images=no_images if target_images is None else target_images,
        target_pseudo_labels=_stack(target.pseudo_labels for target in targets),
        indices=tuple(sample.k for sample in good),
        source_names=tuple(sample.source_name for sample in good),
        target_names=tuple(sample.target_name for sample in good),
        target_ground_truth=_stack(target.labels for target in targets),
        target_second_images=_stack(second.image for second in seconds),
        target_valid=_stack(target.valid for target in targets),
    )


class _Batches(Sequence[list[int]]):
    """The samples of each step, told when they are asked for: a run may have many steps."""

    def __init__(self, firsts: range, own: range) -> None:
        self._firsts, self._own = firsts, own

    def __len__(self) -> int:
        return len(self._firsts)

    def __getitem__(self, place: Any) -> Any:  # noqa: ANN401 - a slice is not asked for
        return [self._firsts[place] + own for own in self._own]


def batches(
    dataset: TrainingDataset, *, batch_size: int, first_step: int, steps: int, workers: int
) -> Iterator[Batch]:
    """The batches of steps `first_step` to `steps`, in order; of several processes, each gets its
    own part of every batch. Raises the InputError of a sample that cannot be used."""
    own = own_batch(batch_size)
    firsts = range(first_step * batch_size, steps * batch_size, batch_size)
    loader = read_ahead(
        dataset,
        _Batches(firsts, own),
        collate=collate,
        workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        yield batch


def _stack(
    arrays: Iterable[npt.NDArray[np.uint8] | npt.NDArray[np.bool_] | None],
) -> torch.Tensor | None:
    """The arrays as one tensor; None when there are none."""
    present = [array for array in arrays if array is not None]
    return torch.from_numpy(np.stack(present)) if present else None
