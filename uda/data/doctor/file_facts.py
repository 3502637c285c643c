"""What each file contains, read by several threads and remembered from one check to the next."""

import os
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from uda.data.files import read_header, read_image
from uda.data.known_files import FileCache, stamp_of
from uda.data.label_files import label_header, read_raw_labels
from uda.data.label_statistics import thin_values
from uda.labels.spaces import Coding
from uda.utilities.errors import InputError

Role = Literal["image", "labels"]


class FileFacts(NamedTuple):
    """What was found in a file."""

    size: tuple[int, int] | None  # (height, width); None: not even that could be read
    counts: dict[int, int]  # pixels of each value in a label file
    error: str = ""  # why it cannot be used, a whole sentence
    kind: str = ""  # of an image that is not 8-bit RGB (see `Header`)
    orientation: int = 1  # of an image (see `Header`)
    thin: int = 0  # rare values of a label file that lie in thin lines


class Job(NamedTuple):
    """A file to look at, as an image or as labels."""

    path: Path
    role: Role
    header_only: bool = False  # of an image; the values of labels are what the check is about
    coding: Coding = Coding()  # of labels


def look_at(job: Job) -> FileFacts:
    """Decodes the file, or reads its header where that is enough."""
    size = None
    try:
        if job.role == "labels":
            size = label_header(job.path).size
            labels = read_raw_labels(job.path, coding=job.coding)
            counts = {value: n for value, n in enumerate(labels.histogram()) if n}
            return FileFacts(size, counts, thin=thin_values(np.asarray(labels), counts))
        header = read_header(job.path)
        size = header.size
        if not job.header_only:
            read_image(job.path, image_range=(0, 1))  # whatever its range, it can be decoded
    except InputError as error:
        return FileFacts(size, {}, str(error))
    return FileFacts(size, {}, kind=header.kind, orientation=header.orientation)


class FactsCache(FileCache):
    """The facts of files that have not changed; see `FileCache`.

    Only what could be read is remembered: a disk that failed may work again.
    """

    def facts(self, job: Job) -> FileFacts | None:
        """What is known of the file, if it has not changed since."""
        try:
            found = self.get(_key(job), stamp_of(job.path).state)
            decoded, size, counts, kind, orientation, thin = found
            if not (decoded or job.header_only):
                return None
            height, width = map(int, size)
            by_value = {int(v): int(n) for v, n in counts.items()}
            return FileFacts((height, width), by_value, "", str(kind), int(orientation), int(thin))
        except (InputError, ValueError, TypeError, AttributeError):
            return None

    def remember(self, job: Job, state: list[int], facts: FileFacts) -> None:
        """Remembers what was read of a file that was in this `state` before it was read."""
        if not facts.error:
            _, counts, _, *others = facts
            self.put(_key(job), state, [not job.header_only, facts.size, counts, *others])


def read_files(
    jobs: Iterable[Job],
    cache: FactsCache,
    *,
    workers: int,
    progress: Callable[[Iterator[Any], int], Iterable[Any]],
) -> tuple[dict[tuple[Path, Role], FileFacts], int]:
    """The facts of every job by its path and role, and how many files had to be read.

    Threads do: Pillow lets others run while it decodes. A file reached by several paths is read
    once. What was read before an interruption is remembered, too.
    """
    keys = {job: (_key(job), job.header_only) for job in jobs}
    unique = {key: job for job, key in keys.items()}
    known = {key: facts for key, job in unique.items() if (facts := cache.facts(job)) is not None}
    unknown = [job for key, job in unique.items() if key not in known]
    try:
        with ThreadPool(workers) as pool:  # leaving it does not wait for what is queued
            for job, state, facts in progress(pool.imap_unordered(_look, unknown), len(unknown)):
                known[keys[job]] = facts
                cache.remember(job, state, facts)
    finally:
        cache.save()
    return {(job.path, job.role): known[key] for job, key in keys.items()}, len(unknown)


def _look(job: Job) -> tuple[Job, list[int], FileFacts]:
    try:
        state = stamp_of(job.path).state
    except InputError:
        state = []  # `look_at` says what is wrong
    return job, state, look_at(job)


def _key(job: Job) -> str:
    coding = sha256(repr(tuple(job.coding)).encode()).hexdigest()[:16]
    meaning = f":{coding}" if any(job.coding) else ""
    return f"{job.role}{meaning}:{os.path.realpath(job.path)}"
