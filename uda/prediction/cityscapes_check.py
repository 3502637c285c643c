"""What the Cityscapes test server would refuse in a zip of predictions.

The server's rules, as far as they can be read without an account:
- Label ids as in labels.py, "not the train ID" (cityscapesScripts, evaluation/
  evalPixelLevelSemanticLabeling.py, the script that scores the test set): ids 0..33. Larger ones
  lie outside the script's confusion matrix.
- One channel, of the size of the image: `evaluatePair` there.
- Exactly one file `<city>_<sequence>_<frame>*.png` per image, in any folder: `getPrediction` there;
  its author on the server itself: github.com/mcordts/cityscapesScripts/issues/65.
- All 1525 images of the split test: README of cityscapesScripts.
"""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile, ZipInfo

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.labels.spaces import CITYSCAPES
from uda.utilities.errors import InputError, require

SERVER_SIZE = (1024, 2048)  # pixels (height, width) of every image of Cityscapes
STEM = re.compile(r"[^_/\\]+_[0-9]{6}_[0-9]{6}")
UNLABELED = 0

_LARGEST_ID = max(CITYSCAPES.trained_raw_ids)
_PNG_START = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_PNG_COLORS = {0: "gray", 2: "RGB", 3: "palette", 4: "gray with transparency", 6: "RGBA"}
_UNREADABLE = (OSError, ValueError, RuntimeError, SyntaxError, EOFError, BadZipFile, zlib.error,
               Image.DecompressionBombError)  # fmt: skip


def check_server_zip(
    path: Path, stems: Sequence[str], *, size: tuple[int, int] = SERVER_SIZE
) -> None:
    """Raises InputError unless the test server can score `path` as predictions of `stems`.

    That is: a zip with one `<stem>*.png` for each image, in any folder, and no other file; each an
    8-bit gray PNG of `size` (height, width) with values 0..33. Values that can only be train ids
    are refused, too. The message has the first problem and how many more there are. Nothing is
    unpacked to disk, and no picture is decoded whose header says another size.
    """
    raise_first(find_problems(path, stems, size), path)


def raise_first(problems: Sequence[str], path: Path) -> None:
    if problems:
        more = f" (the first of {len(problems)} problems)" if len(problems) > 1 else ""
        raise InputError(
            f"{path}: {problems[0]}{more}; write it again with eval_single.py --export cityscapes"
        )


def in_words(size: tuple[int, ...]) -> str:
    return "x".join(str(length) for length in reversed(size))


def find_problems(path: Path, stems: Sequence[str], size: tuple[int, int]) -> list[str]:
    """Everything that the server would refuse in a file."""
    try:
        with _readable("the zip"):
            archive = ZipFile(path)
    except InputError as error:
        return [str(error)]
    with archive:
        infos = archive.infolist()
        problems = [
            f"{info.filename!r} could leave the folder it is unpacked into; allowed: "
            "relative names without .., with / between folders"
            for info in infos
            if _leads_outside(info.filename)
        ]
        files, odd = _files_of(infos, stems)
        return problems + odd + _content_problems(archive, files, size)


def _leads_outside(name: str) -> bool:
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
                f"{info.filename!r} does not belong to any of the {len(found)} images; allowed: "
                "one <image name>*.png for each, and no other file"
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
    match = STEM.match(base)
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
    never_predicted = seen - set(CITYSCAPES.trained_raw_ids) - {UNLABELED}
    largest_train_id = CITYSCAPES.num_classes - 1
    # Small values alone prove nothing (road is 7), but no network predicts what is not scored.
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
        f"{name}: {info.file_size} bytes; a PNG of {in_words(size)} takes at most {most}",
    )
    with _readable(name):
        data = archive.read(info)
    _check_header(data, size, name)
    with _readable(name), Image.open(BytesIO(data), formats=["PNG"]) as image:
        counts = np.array(image.histogram())
    strangers = np.flatnonzero(counts[_LARGEST_ID + 1 :]) + _LARGEST_ID + 1
    if strangers.size:
        raise InputError(
            f"{name}: {strangers[0]} is not a label id that the server knows; allowed: "
            f"0..{_LARGEST_ID}, {UNLABELED} for no class"
        )
    return counts


def _check_header(data: bytes, size: tuple[int, int], name: str) -> None:
    """InputError unless `data` begins as an 8-bit gray PNG of `size` does."""
    end = len(_PNG_START) + 10
    require(len(data) >= end and data.startswith(_PNG_START), f"{name} is not a PNG; allowed: PNG")
    width, height, bits, color = struct.unpack(">IIBB", data[len(_PNG_START) : end])
    require(
        (height, width) == size,
        f"{name}: {width}x{height} pixels; allowed: {in_words(size)}, the size of the images",
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
