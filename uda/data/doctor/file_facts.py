"""What each file holds, read by many hands and remembered from one check to the next."""

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any, Literal, NamedTuple

from uda.data.files import Colors, read_header, read_image, read_raw_labels
from uda.utilities.errors import InputError

Role = Literal["image", "labels"]

_FORMAT = "uda-data-check-1"


class FileFacts(NamedTuple):
    """What was found in a file."""

    size: tuple[int, int] | None  # (height, width); None: not even that could be read
    counts: dict[int, int]  # pixels of each value that a label file holds
    error: str = ""  # why it cannot be used, a whole sentence


class Job(NamedTuple):
    """A file to look at, as an image or as labels."""

    path: Path
    role: Role
    header_only: bool = False  # of an image; the values of labels are what the check is about
    colors: Colors = ()  # of a label space whose files hold colors


def look_at(job: Job) -> FileFacts:
    """Decodes the file, or reads its header where that is enough."""
    size = None
    try:
        size = read_header(job.path).size
        if job.role == "labels":
            histogram = read_raw_labels(job.path, colors=job.colors).histogram()
            return FileFacts(size, {value: n for value, n in enumerate(histogram) if n})
        if not job.header_only:
            read_image(job.path)
    except InputError as error:
        return FileFacts(size, {}, str(error))
    return FileFacts(size, {})


class FactsCache:
    """The facts of files that are as they were: of the same path, size and time of change.

    Only what could be read is remembered: a disk that failed may work again.
    """

    def __init__(self, path: Path) -> None:
        """Reads `path`; one that is missing or damaged remembers nothing."""
        self.path = path
        self.complaint = ""  # why the last `save` did not work
        try:
            stored = json.loads(path.read_text())
            self._entries = stored["files"] if stored["format"] == _FORMAT else {}
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            self._entries = {}
        if not isinstance(self._entries, dict):
            self._entries = {}
        self._changed = False

    def get(self, job: Job) -> FileFacts | None:
        """What is known of the file, if it has not changed since."""
        try:
            stamp, decoded, size, counts = self._entries[_key(job)]
            if stamp != _stamp(job.path) or not (decoded or job.header_only):
                return None
            height, width = map(int, size)
            return FileFacts((height, width), {int(v): int(n) for v, n in counts.items()})
        except (OSError, LookupError, ValueError, TypeError, AttributeError):
            return None

    def put(self, job: Job, stamp: list[int], facts: FileFacts) -> None:
        """Remembers what was read of a file that had the `stamp` before it was read."""
        if not facts.error:
            entry = [stamp, not job.header_only, facts.size, facts.counts]
            self._entries[_key(job)] = entry
            self._changed = True

    def save(self) -> None:
        """Replaces the file at once or not at all; `complaint` says why if it cannot be."""
        if not self._changed:
            return
        text = json.dumps({"format": _FORMAT, "files": self._entries}, separators=(",", ":"))
        try:
            _replace(self.path, text)
        except OSError as error:
            self.complaint = f"{self.path} cannot be written ({error.strerror})"


def read_files(
    jobs: Iterable[Job],
    cache: FactsCache,
    *,
    workers: int,
    progress: Callable[[Iterator[Any], int], Iterable[Any]],
) -> tuple[dict[tuple[Path, Role], FileFacts], int]:
    """The facts of every job by its path and role, and how many files had to be looked at.

    Threads do: Pillow lets others run while it decodes. A file reached by several paths is read
    once. What was read before an interruption is remembered, too.
    """
    keys = {job: (_key(job), job.header_only) for job in jobs}
    unique = {key: job for job, key in keys.items()}
    known = {key: facts for key, job in unique.items() if (facts := cache.get(job)) is not None}
    unknown = [job for key, job in unique.items() if key not in known]
    try:
        with ThreadPool(workers) as pool:  # leaving it does not wait for what is queued
            for job, stamp, facts in progress(pool.imap_unordered(_look, unknown), len(unknown)):
                known[keys[job]] = facts
                cache.put(job, stamp, facts)
    finally:
        cache.save()
    return {(job.path, job.role): known[key] for job, key in keys.items()}, len(unknown)


def _look(job: Job) -> tuple[Job, list[int], FileFacts]:
    try:
        stamp = _stamp(job.path)
    except OSError:
        stamp = []  # `look_at` says what is wrong
    return job, stamp, look_at(job)


def _key(job: Job) -> str:
    meaning = f":{sha256(repr(job.colors).encode()).hexdigest()[:16]}" if job.colors else ""
    return f"{job.role}{meaning}:{os.path.realpath(job.path)}"


def _stamp(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)
    try:
        os.fchmod(descriptor, 0o644)  # colleagues may read it, too
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
