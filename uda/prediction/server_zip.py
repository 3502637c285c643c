"""A zip of PNGs for a test server, written completely or not at all."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.prediction.cityscapes_check import in_words
from uda.utilities.atomic_files import clear_write_errors, move_whole
from uda.utilities.errors import require
from uda.utilities.unfinished import workplace

Labels = npt.NDArray[np.uint8]
Confidence = npt.NDArray[np.floating]


class PngZip(ABC):
    """Writes to a sibling file that is checked, then renamed.

    Use as a context manager: an exception, or leaving before `finish`, removes what was
    written. The same predictions in the same order make the same bytes.
    """

    def __init__(self, path: Path, *, stems: Sequence[str], size: tuple[int, int]) -> None:
        """`stems`: the images to be predicted, all of `size` (height, width).

        Raises InputError when `path` exists or lies in no folder, or when the server could not tell
        which image a prediction belongs to.
        """
        require(not path.exists(), f"{path} exists already: remove it or choose another file")
        require(
            path.parent.is_dir(),
            f"{path}: there is no folder {path.parent}; create it or choose another file",
        )
        self.check_names(stems)
        self._path, self._size = path, size
        self._stems = tuple(stems)
        self._expected = set(stems)

    @abstractmethod
    def check_names(self, stems: Sequence[str]) -> None:
        """Raises InputError for stems by which the server would not find a prediction."""

    @abstractmethod
    def add(self, stem: str, train_ids: Labels, confidence: Confidence | None) -> None:
        """Adds the files of one image with `put`."""

    @abstractmethod
    def check(self, partial: Path, path: Path) -> None:
        """Raises InputError when the server would refuse the closed file `partial`, which is to be
        called `path`."""

    @abstractmethod
    def report(self, path: Path, stems: Sequence[str], size: tuple[int, int]) -> str:
        """What was written, in one line."""

    def __enter__(self) -> Self:
        self._held = ExitStack()
        place = self._held.enter_context(workplace(self._path, another="a copy of the snapshot"))
        self._partial = place / self._path.name
        with clear_write_errors(self._path):
            self._zip = ZipFile(self._partial, "w", ZIP_STORED)  # PNGs are compressed already
        return self

    def write(self, stem: str, train_ids: Labels, confidence: Confidence | None = None) -> None:
        """Adds the prediction of the image `stem`: train ids (H, W) uint8, 255 for no class, and
        how sure they are, (H, W) in [0, 1], where the server wants it.

        Raises InputError when the image is not expected (any more), is of another size than the
        others, or holds a value that is neither a train id nor 255.
        """
        require(
            stem in self._expected,
            f"{self._path}: {stem} was written already, or is not one of the {len(self._stems)} "
            "images to export; give each of them once",
        )
        require(
            train_ids.shape == self._size,
            f"{self._path}: {stem} has the size {in_words(train_ids.shape)}, not "
            f"{in_words(self._size)}; all images of an export are of one size",
        )
        largest = int(train_ids[train_ids != IGNORE_INDEX].max(initial=0))
        require(
            largest < CITYSCAPES.num_classes,
            f"{self._path}: {stem} has the value {largest}, which is not a train id; allowed: "
            f"0..{CITYSCAPES.num_classes - 1} and {IGNORE_INDEX}",
        )
        self._expected.remove(stem)
        self.add(stem, train_ids, confidence)

    def put(self, name: str, values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> None:
        """Adds a gray PNG (H, W) called `name`."""
        with clear_write_errors(self._path):
            self._zip.writestr(_member(name), _png(values))

    def finish(self) -> str:
        """Checks the zip, gives it its name and says in one line what it is.

        Raises InputError, leaving nothing behind, when `check` does.
        """
        with clear_write_errors(self._path):
            self._zip.close()
        self.check(self._partial, self._path)
        with clear_write_errors(self._path):
            move_whole(self._partial, self._path)
        return self.report(self._path, self._stems, self._size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with suppress(OSError):  # a full disk, say: the first error is the one to report
            self._zip.close()
        self._held.close()


def _member(name: str) -> ZipInfo:
    # A fixed date and system, so that the bytes do not depend on when and where they were written.
    info = ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix; its permissions come next: everybody may read
    info.external_attr = 0o100644 << 16
    return info


def _png(values: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> bytes:
    buffer = BytesIO()
    # Half the size of level 1, for a fraction of the time that the network took.
    Image.fromarray(values).save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()
