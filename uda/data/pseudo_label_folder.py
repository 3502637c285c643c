"""A folder of pseudo-labels: train-id PNGs and a manifest that says where they come from.

    <folder>/<stem>_pseudo_trainIds.png     8-bit gray, train ids, 255 where no label is given
    <folder>/manifest.json                  see `Manifest`

The files are never called labelIds: that name promises raw ids, and a reader that maps train ids a
second time trains on nonsense without a word (it once cost this project's forerunner a student).
"""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.label_files import read_raw_labels
from uda.data.pixel_cache import PixelCache, held_picture
from uda.data.png_checks import check_png
from uda.data.samples import is_left_by_mac
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.atomic_files import clear_write_errors, replacing
from uda.utilities.config_tree import from_plain
from uda.utilities.distributed import is_main, wait_for_all
from uda.utilities.errors import InputError, require, require_share, shown
from uda.utilities.locks import holds_nothing
from uda.utilities.reading import LARGE, read_bytes, real, why
from uda.utilities.sealed_json import sealed, unsealed
from uda.utilities.unfinished import UnfinishedFolder

MANIFEST = "manifest.json"
ID_SPACE = "trainIds"
_SUFFIX = "_pseudo_trainIds.png"
_LONGEST_STEM = 200  # bytes; with what is added, file systems take 255 bytes
_NO_NAME = "is not a valid image name"
_ANEW = "create the labels again with pseudo_label.py"


@dataclass(kw_only=True, slots=True)
class Manifest:
    """What a folder of pseudo-labels says about itself."""

    id_space: str  # always "trainIds"
    label_space: str
    classes: tuple[str, ...]
    rule: str  # how pixels were chosen, in words
    threshold: float | None = None  # softmax probability below which a pixel is 255
    rule_settings: dict[str, float] = field(default_factory=dict)  # the rule's numbers by name
    thresholds: dict[str, float] | None = None  # by class, where each has its own
    protocol: str  # how the network saw the images
    snapshot: str  # file name of the network's snapshot
    snapshot_sha256: str
    supervision: str  # the snapshot's own: a supervised network makes supervised labels
    image_count: int  # of `images`
    images: tuple[str, ...]  # stems, sorted
    share_kept: float  # of all pixels
    share_kept_per_class: dict[str, float | None]  # of the pixels predicted as the class

    def check(self, path: str) -> None:
        """Raises InputError, naming the field below `path`, when a value is out of its range."""
        for stem in self.images:
            require(_is_plain_name(stem), f"{path}: {shown(stem)} in images {_NO_NAME}; {_ANEW}")
        require(
            self.image_count == len(self.images) == len(set(self.images)),
            f"{path}: image_count is {self.image_count}, and images names {len(set(self.images))} "
            f"different ones in {len(self.images)} entries; {_ANEW}",
        )
        require_share(f"{path}: threshold", self.threshold or 0)
        for threshold in (self.thresholds or {}).values():
            require_share(f"{path}: a threshold", threshold)
        for share in (self.share_kept, *self.share_kept_per_class.values()):
            require_share(f"{path}: a share", share or 0)


def file_name(stem: str) -> str:
    """The name of the label file of the image `stem`; InputError when it could be elsewhere."""
    require(_is_plain_name(stem), f"{shown(stem)} {_NO_NAME}: rename the image")
    return stem + _SUFFIX


def _is_plain_name(stem: str) -> bool:
    """Whether it names a file of the folder that it is looked up in, on any system."""
    harmless = stem.isprintable() and not any(c in stem for c in "/\\:")
    return harmless and not stem.startswith(".") and 0 < len(stem.encode()) <= _LONGEST_STEM


class PseudoLabelFolder:
    """Reads such a folder, once its manifest has been found to fit."""

    def __init__(
        self,
        folder: Path,
        *,
        label_space: LabelSpace,
        stems: Iterable[str],
        subset: bool,
        mapped_twice: bool = False,
    ) -> None:
        """Raises InputError when the manifest is missing or does not declare train ids of
        `label_space`, or when its images, the files and `stems` (those of the target) are not the
        same; with `subset`, the manifest may list images beyond `stems`.

        `mapped_twice` repeats the mistake that this file's docstring tells of, for those who want
        to see what comes of it."""
        self.folder = folder
        self.manifest = read_manifest(folder)
        check_classes(folder, self.manifest, label_space)
        self._num_classes = label_space.num_classes
        raw_to_train = label_space.raw_to_train
        self._second_mapping = (
            [raw_to_train.get(train_id, IGNORE_INDEX) for train_id in range(256)]
            if mapped_twice
            else None
        )
        wanted = list(stems)
        require(
            len(set(wanted)) == len(wanted),
            f"{folder}: target images of different data sets share a name, so their labels would "
            "be mixed up; train with one target data set",
        )
        self._check_images(set(wanted), subset=subset)

    def _check_images(self, stems: set[str], *, subset: bool) -> None:
        for problem, names in disagreements(self.folder, self.manifest, stems, subset=subset):
            if names:
                raise InputError(
                    f"{self.folder}: {len(names)} {problem}, the first is {min(names)}; make the "
                    "labels for this target (data.target.splits, data.target.first) with "
                    "pseudo_label.py"
                )

    def read(
        self, stem: str, size: tuple[int, int], cache: PixelCache | None = None
    ) -> Image.Image:
        """Train ids of one image of `size` (height, width) as an 8-bit gray picture, from the
        `cache` if it has them.

        Raises InputError when the file is corrupt, of another size, or has a value that is
        neither a train id nor 255.
        """
        path = self.folder / file_name(stem)
        if cache is None:
            return self._decode(path, size)
        settings: list[object] = ["pseudo-labels", self._num_classes, self._second_mapping, size]
        return held_picture(
            cache, path, settings, lambda: (self._decode(path, size), size)
        ).picture()

    def _decode(self, path: Path, size: tuple[int, int]) -> Image.Image:
        check_png(path)
        labels = read_raw_labels(path, size)
        counts = labels.histogram()
        if any(counts[self._num_classes : IGNORE_INDEX]):
            strangers = [v for v in range(self._num_classes, IGNORE_INDEX) if counts[v]]
            raise InputError(
                f"{path}: value {strangers[0]} is not a train id; allowed: "
                f"0..{self._num_classes - 1} and 255. Create the labels again with pseudo_label.py"
            )
        return labels if self._second_mapping is None else labels.point(self._second_mapping)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder of pseudo-labels; InputError when there is none or it is damaged."""
    path = folder / MANIFEST
    try:
        values = unsealed(read_bytes(path, LARGE))
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist: {folder} is not a folder of pseudo-labels; make one with "
            "python pseudo_label.py --restore-from SNAPSHOT --threshold 0.5"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({why(error)}): {_ANEW}") from None
    if isinstance(values, dict):  # JSON has lists where we have tuples
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in values.items()}
    manifest = from_plain(Manifest, values, origin=str(path))
    manifest.check(str(path))
    return manifest


def check_classes(folder: Path, manifest: Manifest, label_space: LabelSpace) -> None:
    """Raises InputError unless a folder's manifest declares train ids of `label_space`."""
    if manifest.id_space != ID_SPACE:
        raise InputError(
            f"{folder / MANIFEST}: id space is {manifest.id_space!r}; only "
            f"{ID_SPACE!r} can be read: create the labels again with pseudo_label.py"
        )
    if manifest.classes != label_space.classes:
        raise InputError(
            f"{folder / MANIFEST}: labels of {manifest.label_space} with "
            f"{len(manifest.classes)} classes; the run learns {label_space.name} with "
            f"{label_space.num_classes}"
        )


def _label_files(folder: Path) -> list[Path]:
    """The label files; InputError when one is a link that leads out of the folder."""
    names = [entry.name for entry in os.scandir(folder) if entry.name.endswith(_SUFFIX)]
    found = [folder / name for name in names if not is_left_by_mac(name)]
    home = real(folder)
    for path in found:
        require(
            not path.is_symlink() or real(path).parent == home,
            f"{path} is a link that leads out of the folder: put the file in its place",
        )
    return found


def disagreements(
    folder: Path, manifest: Manifest, stems: set[str], *, subset: bool
) -> list[tuple[str, set[str]]]:
    """What is wrong between the files of `folder`, its manifest and the target's `stems`, in words,
    and the stems that this is true of, often none; `subset` as for `PseudoLabelFolder`. Raises
    InputError when a file is a link that leads out of the folder."""
    listed = set(manifest.images)
    present = {path.name.removesuffix(_SUFFIX) for path in _label_files(folder)}
    return [
        ("target images have no pseudo-label", stems - listed),
        ("pseudo-labels have no target image", set() if subset else listed - stems),
        ("files of the manifest are missing", listed - present),
        ("files are not in the manifest", present - listed),
    ]


class PseudoLabelWriter:
    """Writes such a folder whole or not at all: files go to a sibling that is renamed at the end.

    Use as a context manager: leaving it by an exception removes what was written.
    """

    def __init__(self, folder: Path) -> None:
        """Raises InputError when `folder` exists and is not empty."""
        self._unfinished = UnfinishedFolder(folder, check=partial(_check_free, folder))

    def __enter__(self) -> Self:
        self._unfinished.__enter__()
        return self

    def write(self, stem: str, labels: npt.NDArray[np.uint8]) -> None:
        """Stores train ids (H, W) uint8 of the image `stem`; InputError if it has some."""
        path = self._unfinished.path / file_name(stem)
        if path.exists():
            raise InputError(
                f"two images are called {stem}: make a folder of pseudo-labels for each data set"
            )
        with clear_write_errors(path):
            Image.fromarray(labels).save(path, compress_level=1)

    def finish(self, manifest: Manifest) -> None:
        """Adds the manifest and gives the folder its name, once all processes have come here."""
        wait_for_all()
        if is_main():
            said = {n: v for n, v in asdict(manifest).items() if v is not None and v != {}}
            with replacing(self._unfinished.path / MANIFEST) as file:
                file.write(sealed(said))
        self._unfinished.finish()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._unfinished.__exit__(kind, error, trace)


def _check_free(folder: Path) -> None:
    require(
        not folder.exists() or (folder.is_dir() and holds_nothing(folder)),
        f"{folder} exists already: remove it or choose another with --output DIR",
    )
