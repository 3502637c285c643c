"""Predictions as the Cityscapes test server takes them: one zip of label-id PNGs, and its check.

    <stem>_pred_labelIds.png     8-bit gray, label ids (not train ids), 0 where no class is given

The server's rules, as far as they can be read without an account:
- Label ids as in labels.py, "not the train ID" (cityscapesScripts, evaluation/
  evalPixelLevelSemanticLabeling.py, the script that scores the test set): ids 0..33. Larger ones
  lie outside the script's confusion matrix.
- One channel, of the size of the image: `evaluatePair` there.
- Exactly one file `<city>_<sequence>_<frame>*.png` per image, in any folder: `getPrediction` there;
  its author on the server itself: github.com/mcordts/cityscapesScripts/issues/65.
- All 1525 images of the split test: README of cityscapesScripts.
One submitter's script also speaks of 100 MB per zip; nothing official was found to confirm it.
"""

import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from types import TracebackType
from typing import Self
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.labels.spaces import CITYSCAPES as CITYSCAPES_CLASSES
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import InputError, require

SERVER_SIZE = (1024, 2048)  # pixels (height, width) of every image of Cityscapes
TEST_IMAGES = 1525

_SAID_LIMIT = 100 * 10**6  # bytes; hearsay, see above, so it is mentioned and refuses nothing
_SUFFIX = "_pred_labelIds.png"
_STEM = re.compile(r"[^_/\\]+_[0-9]{6}_[0-9]{6}")
_UNLABELED = 0
_LARGEST_ID = max(CITYSCAPES_CLASSES.trained_raw_ids)

_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_COLORS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with transparency", 6: "RGBA"}
_UNREADABLE = (OSError, ValueError, RuntimeError, SyntaxError, EOFError, BadZipFile, zlib.error,
               Image.DecompressionBombError)  # fmt: skip


class ServerZip:
    """Writes such a zip whole or not at all: to a sibling that is checked and renamed at the end.

    Use as a context manager: leaving it by an exception, or before `finish`, removes what was
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
            f"{path}: there is no folder {path.parent}; make it or choose another file",
        )
        _require_server_names(stems)
        self._path, self._size, self._label_space = path, size, label_space
        self._stems = tuple(stems)
        self._awaited = set(stems)
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

        Raises InputError when the image is not awaited (any more), is of another size than the
        others, or holds a value that is neither a train id nor 255.
        """
        require(
            stem in self._awaited,
            f"{self._path}: {stem} was written already, or is none of the {len(self._stems)} "
            "images to be exported; give each of them once",
        )
        require(
            train_ids.shape == self._size,
            f"{self._path}: {stem} has the size {_words(train_ids.shape)}, not "
            f"{_words(self._size)}; all images of an export are of one size",
        )
        largest = int(train_ids[train_ids != IGNORE_INDEX].max(initial=0))
        require(
            largest < self._label_space.num_classes,
            f"{self._path}: {stem} holds {largest}, which is no train id; allowed: "
            f"0..{self._label_space.num_classes - 1} and {IGNORE_INDEX}",
        )
        self._awaited.remove(stem)
        label_ids = self._label_space.to_raw_ids(train_ids, ignored=_UNLABELED)
        self._zip.writestr(_member(stem + _SUFFIX), _png(label_ids))

    def finish(self) -> str:
        """Checks the zip, gives it its name and says in one line what it is.

        Raises InputError, leaving nothing behind, when `check_server_zip` would refuse it.
        """
        self._zip.close()
        _raise_first(_problems(self._partial, self._stems, self._size), self._path)
        with self._partial.open("rb") as file:
            os.fsync(file.fileno())
        self._partial.rename(self._path)
        return _report(self._path, len(self._stems), self._size)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        with suppress(OSError):  # a full disk, say: the error that counts is on its way already
            self._zip.close()
        self._partial.unlink(missing_ok=True)


def check_server_zip(
    path: Path, stems: Sequence[str], *, size: tuple[int, int] = SERVER_SIZE
) -> None:
    """Raises InputError unless the test server can score `path` as predictions of `stems`.

    That is: a zip with one `<stem>*.png` for each image, in any folder, and no other file; each an
    8-bit gray PNG of `size` (height, width) with values 0..33. Values that can only be train ids
    are refused, too. The message has the first problem and how many more there are. Nothing is
    unpacked to disk, and no picture is decoded whose header says another size.
    """
    _raise_first(_problems(path, stems, size), path)


def _require_server_names(stems: Sequence[str]) -> None:
    for stem, times in Counter(stems).items():
        require(
            _STEM.fullmatch(stem) is not None,
            f"{stem} is no image name of Cityscapes, such as berlin_000123_000019, by which the "
            "server finds its prediction; export a split of cityscapes",
        )
        require(times == 1, f"{times} images are called {stem}; export one split at a time")


def _member(name: str) -> ZipInfo:
    # A fixed date and a fixed system, lest the bytes depend on when and where they were written.
    info = ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = 3  # Unix, whose permissions come next: everybody reads
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
            f"; the server expects {TEST_IMAGES} of {_words(SERVER_SIZE)}, these are {count} of "
            f"{_words(size)}"
        )
    length = path.stat().st_size
    if length > _SAID_LIMIT:
        line += f"; {length / 1e6:.0f} MB, and the server is said to take {_SAID_LIMIT / 1e6:.0f}"
    return line


def _words(size: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in reversed(size))


def _raise_first(problems: Sequence[str], path: Path) -> None:
    if problems:
        more = f" (the first of {len(problems)} problems)" if len(problems) > 1 else ""
        raise InputError(
            f"{path}: {problems[0]}{more}; write it anew with eval_single.py --export cityscapes"
        )


def _problems(path: Path, stems: Sequence[str], size: tuple[int, int]) -> list[str]:
    """Everything about a file that the server could trip over."""
    try:
        with _readable("the zip"):
            archive = ZipFile(path)
    except InputError as error:
        return [str(error)]
    with archive:
        infos = archive.infolist()
        problems = [
            f"{info.filename!r} could lead out of the folder it is unpacked into; allowed: "
            "relative names without .., with / between folders"
            for info in infos
            if _leads_astray(info.filename)
        ]
        files, odd = _files_of(infos, stems)
        return problems + odd + _content_problems(archive, files, size)


def _leads_astray(name: str) -> bool:
    drive = name[1:2] == ":"
    return name.startswith("/") or ".." in name.split("/") or "\\" in name or drive


def _files_of(infos: Sequence[ZipInfo], stems: Sequence[str]) -> tuple[list[ZipInfo], list[str]]:
    """The files of the images that have exactly one, and what is wrong with the others."""
    found: dict[str, list[ZipInfo]] = {stem: [] for stem in stems}
    problems = []
    for info in infos:
        stem = _stem_of(info.filename)
        if stem in found:
            found[stem].append(info)
        elif not info.is_dir():
            problems.append(
                f"{info.filename!r} belongs to none of the {len(found)} images; allowed: one "
                "<image name>*.png for each, and no other file"
            )
    for stem, files in found.items():
        if not files:
            problems.append(f"there is no {stem}*.png; the server wants one for each image")
        elif len(files) > 1:
            names = ", ".join(repr(info.filename) for info in files[:2])
            problems.append(f"{len(files)} files are {stem}*.png ({names}); allowed: one")
    return [files[0] for files in found.values() if len(files) == 1], problems


def _stem_of(name: str) -> str:
    """The image that the server takes a file for, "" if for none."""
    base = name.rpartition("/")[2]
    match = _STEM.match(base)
    return match.group() if match and base.endswith(".png") else ""


def _content_problems(
    archive: ZipFile, files: Sequence[ZipInfo], size: tuple[int, int]
) -> list[str]:
    problems = []
    pixels = np.zeros(256, np.int64)  # of each value
    for info in files:
        try:
            pixels += _count_values(archive, info, size)
        except InputError as error:
            problems.append(str(error))
    seen = set(np.flatnonzero(pixels).tolist())
    never_predicted = seen - set(CITYSCAPES_CLASSES.trained_raw_ids) - {_UNLABELED}
    largest_train_id = CITYSCAPES_CLASSES.num_classes - 1
    # Small values alone are no proof, road is 7; but nobody predicts what is not scored.
    if never_predicted and max(seen) <= largest_train_id:
        problems.append(
            f"no value in any file is above {largest_train_id}, and {min(never_predicted)} is "
            "never scored: these look like train ids; allowed: label ids"
        )
    return problems


def _count_values(archive: ZipFile, info: ZipInfo, size: tuple[int, int]) -> npt.NDArray[np.int64]:
    """How many pixels of a file have each value (256,); InputError when it cannot be scored."""
    name = repr(info.filename)
    require(
        info.compress_type in (ZIP_STORED, ZIP_DEFLATED),
        f"{name}: compression method {info.compress_type}; allowed: stored, deflated",
    )
    most = 2 * size[0] * size[1] + 2**16  # a PNG without any compression needs about half of it
    require(
        info.file_size <= most,
        f"{name}: {info.file_size} bytes; a PNG of {_words(size)} takes at most {most}",
    )
    with _readable(name):
        data = archive.read(info)
    _check_header(data, size, name)
    with _readable(name), Image.open(BytesIO(data), formats=["PNG"]) as image:
        counts = np.array(image.histogram())
    strangers = np.flatnonzero(counts[_LARGEST_ID + 1 :]) + _LARGEST_ID + 1
    if strangers.size:
        raise InputError(
            f"{name}: {strangers[0]} is no label id that the server knows; allowed: "
            f"0..{_LARGEST_ID}, {_UNLABELED} for no class"
        )
    return counts


def _check_header(data: bytes, size: tuple[int, int], name: str) -> None:
    """InputError unless `data` begins as an 8-bit gray PNG of `size` does."""
    end = len(_PNG_START) + 10
    require(len(data) >= end and data.startswith(_PNG_START), f"{name} is no PNG; allowed: PNG")
    width, height, bits, color = struct.unpack(">IIBB", data[len(_PNG_START) : end])
    require(
        (height, width) == size,
        f"{name}: {width}x{height} pixels; allowed: {_words(size)}, the size of the images",
    )
    kind = f"{bits}-bit {_PNG_COLORS.get(color, 'unknown')}"
    require(kind == "8-bit gray", f"{name}: a PNG of {kind}; allowed: 8-bit gray")


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Turns what a damaged file raises into an InputError that names the file."""
    try:
        yield
    except _UNREADABLE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name} cannot be read ({reason})") from None
