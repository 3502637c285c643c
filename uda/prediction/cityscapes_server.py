"""Predictions as the Cityscapes test server takes them: one zip of label-id PNGs.

    <stem>_pred_labelIds.png     8-bit gray, label ids (not train ids), 0 where no class is given

The server's rules are in uda/prediction/cityscapes_check.py. One submitter's script also speaks of
100 MB per zip; nothing official was found to confirm it.
"""

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.prediction.cityscapes_check import (
    SERVER_SIZE,
    STEM,
    UNLABELED,
    find_problems,
    in_words,
    raise_first,
)
from uda.utilities.errors import InputError, require

TEST_IMAGES = 1525

_SAID_LIMIT = 100 * 10**6  # bytes; hearsay, see above, so it is mentioned and refuses nothing
_SUFFIX = "_pred_labelIds.png"


class ServerZip:
    """Writes such a zip completely or not at all: to a sibling file that is checked, then renamed.

    Use as a context manager: an exception, or leaving before `finish`, removes what was
    written. The same predictions in the same order make the same bytes.
    """

    def __init__(
        self,
        path: Path,
        *,
        stems: Sequence[str],
        label_space: LabelSpace,
        size: tuple[int, int] = SERVER_SIZE,
    ) -> None:
        """`stems`: the images to be predicted, all of `size` (height, width).

        Raises InputError when `path` exists or lies in no folder, or when the server could not tell
        which image a prediction belongs to.
        """
        require(not path.exists(), f"{path} exists already: remove it or choose another file")
        require(
            path.parent.is_dir(),
            f"{path}: there is no folder {path.parent}; create it or choose another file",
        )
        _require_server_names(stems)
        self._path, self._size, self._label_space = path, size, label_space
        self._stems = tuple(stems)
        self._expected = set(stems)
        self._partial = path.with_name(path.name + ".partial")

    def __enter__(self) -> Self:
        try:
            self._zip = ZipFile(self._partial, "w", ZIP_STORED)  # PNGs are compressed already
        except OSError as error:
            raise InputError(
                f"{self._path} cannot be written ({error.strerror}): choose another file"
            ) from None
        return self

    def write(self, stem: str, train_ids: npt.NDArray[np.uint8]) -> None:
        """Adds the prediction of the image `stem`: train ids (H, W) uint8, 255 for no class.

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
            largest < self._label_space.num_classes,
            f"{self._path}: {stem} has the value {largest}, which is not a train id; allowed: "
            f"0..{self._label_space.num_classes - 1} and {IGNORE_INDEX}",
        )
        self._expected.remove(stem)
        label_ids = self._label_space.to_raw_ids(train_ids, ignored=UNLABELED)
        self._zip.writestr(_member(stem + _SUFFIX), _png(label_ids))

    def finish(self) -> str:
        """Checks the zip, gives it its name and says in one line what it is.

        Raises InputError, leaving nothing behind, when `check_server_zip` would refuse it.
        """
        self._zip.close()
        raise_first(find_problems(self._partial, self._stems, self._size), self._path)
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.rename(self._path)
        return _report(self._path, len(self._stems), self._size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with suppress(OSError):  # a full disk, say: the first error is the one to report
            self._zip.close()
        self._partial.unlink(missing_ok=True)


def _require_server_names(stems: Sequence[str]) -> None:
    for stem, times in Counter(stems).items():
        require(
            STEM.fullmatch(stem) is not None,
            f"{stem} is not an image name of Cityscapes, such as berlin_000123_000019, by "
            "which the server finds its prediction; export a split of cityscapes",
        )
        require(times == 1, f"{times} images are called {stem}; export one split at a time")


def _member(name: str) -> ZipInfo:
    # A fixed date and system, so that the bytes do not depend on when and where they were written.
    info = ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix; its permissions come next: everybody may read
    info.external_attr = 0o100644 << 16
    return info


def _png(label_ids: npt.NDArray[np.uint8]) -> bytes:
    buffer = BytesIO()
    # Half the size of level 1, for a fraction of the time that the network took.
    Image.fromarray(label_ids).save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


def _report(path: Path, count: int, size: tuple[int, int]) -> str:
    line = f"{count} label-id PNGs, checked against the server's rules: {path}"
    if (count, size) != (TEST_IMAGES, SERVER_SIZE):
        line += (
            f"; the server expects {TEST_IMAGES} of {in_words(SERVER_SIZE)}, these are {count} of "
            f"{in_words(size)}"
        )
    length = path.stat().st_size
    if length > _SAID_LIMIT:
        line += f"; {length / 1e6:.0f} MB, and the server is said to take {_SAID_LIMIT / 1e6:.0f}"
    return line
