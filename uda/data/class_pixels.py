"""How many pixels of each class label files have: counted once, remembered beside the data."""

import hashlib
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from uda.data.known_files import FileCache, KnownFiles, has_settled
from uda.data.label_files import read_raw_labels
from uda.data.samples import Sample
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.annotations import matches
from uda.utilities.distributed import any_of, is_main, sum_over_ranks
from uda.utilities.errors import InputError, WriteError, require
from uda.utilities.loading import read_ahead

_SAVE_EVERY = 30  # seconds: what a killed process has counted meanwhile is counted again

T = TypeVar("T")
Counts = npt.NDArray[np.int64]


class Progress(Protocol):
    """Shows how far the work is that it passes on."""

    def __call__(self, items: Iterable[T], *, total: int) -> Iterable[T]: ...


def without_progress(items: Iterable[T], *, total: int) -> Iterable[T]:
    """The `items`, of which nothing is shown."""
    return items


class Remembered(NamedTuple):
    """Where the counts of one data set are kept."""

    folder: Path  # of the data set: label files are called by their path from here
    file: Path


def class_pixels(
    samples: Sequence[Sample],
    space: LabelSpace,
    remembered: Mapping[str, Remembered],
    files: KnownFiles,
    *,
    workers: int,
    progress: Progress = without_progress,
) -> Counts:
    """(N, C): pixels of each of the C train ids in the label files of N `samples`, at the size in
    which they are stored; the same on all processes, of which the first one counts.

    space: of label files whose sample names none; `remembered`: by the name of each data set. Files
    that have not changed since they were counted are not opened. Raises InputError when a label
    file cannot be used, and WriteError when counts cannot be kept, before any is counted.
    """
    counts = np.zeros((len(samples), space.num_classes), np.int64)
    error = None
    if is_main():
        try:
            counts = _Counting(samples, space, remembered, files).finished(workers, progress)
        except InputError as found:
            error = found
    refusal = any_of("" if error is None else str(error))
    if error is not None:
        raise error
    require(not refusal, refusal)
    return sum_over_ranks(torch.from_numpy(counts)).numpy()


class _Counting:
    """Counts of label files, from memory and from the files."""

    def __init__(
        self,
        samples: Sequence[Sample],
        space: LabelSpace,
        remembered: Mapping[str, Remembered],
        files: KnownFiles,
    ) -> None:
        self.samples = samples
        self.spaces = [sample.space or space for sample in samples]
        self.paths = [_labels(sample) for sample in samples]
        self.stamps = files.stamps(self.paths)
        self.caches = {name: FileCache(place.file) for name, place in remembered.items()}
        keys = {name: _key(name) for name in set(self.spaces)}
        self.names = [
            f"{keys[known]}:{path.relative_to(remembered[sample.dataset].folder).as_posix()}"
            for sample, known, path in zip(samples, self.spaces, self.paths, strict=True)
        ]

    def finished(self, workers: int, progress: Progress) -> Counts:
        found = [self._known(place) for place in range(len(self.samples))]
        unknown = [place for place, counts in enumerate(found) if counts is None]
        if unknown:
            self._save(always=True)  # a folder that takes no file is noticed before the work
            for place, counts in self._read(unknown, workers, progress):
                found[place] = counts
        return np.array(found, np.int64)

    def _known(self, place: int) -> list[int] | None:
        """What is remembered of a label file; None for what is nothing that this class wrote."""
        counts = self._cache(place).get(self.names[place], self.stamps[place].state)
        fits = matches(tuple(counts), tuple[int, ...]) if isinstance(counts, list) else False
        if not fits or len(counts) != self.spaces[place].num_classes or min(counts) < 0:
            return None
        return list(counts)

    def _read(
        self, unknown: list[int], workers: int, progress: Progress
    ) -> Iterable[tuple[int, list[int]]]:
        work = _LabelFiles([(self.paths[place], self.spaces[place]) for place in unknown])
        counted = read_ahead(work, workers=workers, collate=_only)
        saved = time.monotonic()
        try:
            for place, counts in zip(unknown, progress(counted, total=len(unknown)), strict=True):
                if isinstance(counts, InputError):
                    raise counts
                if has_settled(self.stamps[place]):
                    self._cache(place).put(self.names[place], self.stamps[place].state, counts)
                if time.monotonic() > saved + _SAVE_EVERY:
                    self._save()
                    saved = time.monotonic()
                yield place, counts
        finally:
            self._save()

    def _cache(self, place: int) -> FileCache:
        return self.caches[self.samples[place].dataset]

    def _save(self, *, always: bool = False) -> None:
        for cache in self.caches.values():
            with suppress(OSError):  # the cache says why it cannot be saved
                cache.path.parent.mkdir(parents=True, exist_ok=True)
            cache.save(always=always)
            if cache.complaint:
                raise WriteError(
                    f"{cache.complaint}: the pixels of each class in label files are counted once "
                    "and kept there; name a folder that can be written, with --set "
                    "data.rare_classes.statistics=FOLDER"
                )


class _LabelFiles(Dataset["list[int] | InputError"]):
    """The counts of label files by number; a file that cannot be used is the error it causes."""

    def __init__(self, files: list[tuple[Path, LabelSpace]]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, place: int) -> list[int] | InputError:
        path, space = self.files[place]
        try:
            raw = read_raw_labels(path, coding=space.coding).histogram()
            values = np.flatnonzero(raw).astype(np.uint8)
            train_ids = space.to_train_ids(values, str(path))
        except InputError as error:
            return error
        counts = np.bincount(train_ids, np.array(raw)[values], minlength=IGNORE_INDEX + 1)
        found: list[int] = counts[: space.num_classes].astype(int).tolist()
        return found


def _only(items: list[T]) -> T:
    (item,) = items
    return item


def _labels(sample: Sample) -> Path:
    assert sample.labels is not None, "source images have label files"
    return sample.labels


def _key(space: LabelSpace) -> str:
    """Differs for label spaces that read another train id from some file."""
    ids = sorted(space.raw_to_train.items())
    return hashlib.sha256(repr((space.num_classes, ids, space.coding)).encode()).hexdigest()[:12]
