"""Whether the files that a run was made with are still the same: sizes, times, parts of contents.

Stored are the size and the time of every file, and a digest of both ends of up to 1,024 of them. A
resumed run looks each up once and reads only what has another time and was compared before.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import numpy as np
import torch
from torch import Tensor

from uda.data.known_files import KnownFiles
from uda.data.pseudo_label_folder import file_name
from uda.data.sampling import TrainingDataset

_MOST_COMPARED = 1024  # files: up to so many, each one can be told from its copy
_NAMED = 3  # files in a message


class StoredFiles(TypedDict):
    """What a resume.pth says of the files of its run, in the order of the samples."""

    sizes: Tensor  # (n,) int64, bytes
    times: Tensor  # (n,) int64, ns
    compared: Tensor  # (m, 32) uint8: the ends of evenly spaced files
    named: NotRequired[dict[str, list[str | int]]]  # size, time and ends of what the preset names


class Changes(NamedTuple):
    """How files differ from those of the stored run; both texts are empty where they do not."""

    refusal: str  # which have changed, or may have
    remark: str  # which only have other times


@dataclass(frozen=True, slots=True)
class UsedFiles:
    """The files that a run is a function of, as they are now."""

    paths: tuple[Path, ...]
    stored: StoredFiles

    def since(self, former: StoredFiles) -> Changes:
        """What has changed since a run of the same samples stored `former`."""
        now, count = self.stored, len(self.paths)
        if len(former["sizes"]) != count:
            return Changes(f"{len(former['sizes'])} files then, {count} now", "")
        changed = set(torch.nonzero(former["sizes"] != now["sizes"]).flatten().tolist())
        other = set(torch.nonzero(former["times"] != now["times"]).flatten().tolist()) - changed
        same: set[int] = set()
        for place, place_in_list in _compared(count):
            if place in other:
                ends = former["compared"][place_in_list], now["compared"][place_in_list]
                (same if torch.equal(*ends) else changed).add(place)
        untold = other - same - changed
        # A copy of all files has other times throughout: a sample of them answers for the rest.
        if len(other) == count and not changed:
            untold = set()
        names = [self.paths[place] for place in sorted(changed)] + self._named(former, now)
        parts = []
        if names:
            parts.append(f"{_listed(names)} changed")
        if untold:
            paths = [self.paths[place] for place in sorted(untold)]
            parts.append(f"{_listed(paths)} another time and the same size, and may have changed")
        if parts or not other:
            return Changes("; ".join(parts), "")
        found = "" if len(same) == len(other) else f" ({len(same)} of them were compared)"
        return Changes(
            "", f"{len(other)} files have other times but the same content{found}: taken as copies"
        )

    def _named(self, former: StoredFiles, now: StoredFiles) -> list[Path]:
        before, after = former.get("named", {}), now.get("named", {})
        # What is gone was read when the run began, and is needed no more.
        return [
            Path(name)
            for name in before.keys() & after.keys()
            if (before[name][0], before[name][2]) != (after[name][0], after[name][2])
        ]


def used_files(dataset: TrainingDataset, named: Sequence[str], files: KnownFiles) -> UsedFiles:
    """The images of a run, the label files that it reads, its pseudo-labels, and of the paths
    `named` in its preset those of files. Label files of the target are not looked for unless the
    preset trains on them."""
    paths = tuple(_paths_of(dataset))
    stamps = files.stamps(paths)
    ends = files.ends([paths[place] for place, _ in _compared(len(paths))])
    found = [Path(name) for name in named if Path(name).is_file()]
    return UsedFiles(
        paths,
        StoredFiles(
            sizes=torch.tensor([stamp.size for stamp in stamps], dtype=torch.int64),
            times=torch.tensor([stamp.modified for stamp in stamps], dtype=torch.int64),
            compared=torch.tensor([[*bytes.fromhex(text)] for text in ends], dtype=torch.uint8),
            named={
                str(path): [stamp.size, stamp.modified, text]
                for path, stamp, text in zip(
                    found, files.stamps(found), files.ends(found), strict=True
                )
            },
        ),
    )


def _paths_of(dataset: TrainingDataset) -> Iterator[Path]:
    for sample in (*dataset.source, *dataset.target):
        yield sample.image
        if sample.labels is not None:
            yield sample.labels
    if dataset.pseudo_labels is not None:
        for sample in dataset.target:
            yield dataset.pseudo_labels.folder / file_name(sample.stem)


def _compared(count: int) -> list[tuple[int, int]]:
    """The files, of `count`, whose ends are compared, each with its place among these."""
    places = np.linspace(0, count - 1, min(count, _MOST_COMPARED)).round().astype(int)
    return [(int(place), number) for number, place in enumerate(places)]


def strings_in(values: object) -> Iterator[str]:
    """Every text in plain values."""
    if isinstance(values, str):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from strings_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from strings_in(value)


def _listed(paths: Sequence[Path]) -> str:
    """ "A, B and 7 more have", for a sentence."""
    first = ", ".join(map(str, paths[:_NAMED]))
    more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
    return f"{first}{more} {'has' if len(paths) == 1 else 'have'}"
