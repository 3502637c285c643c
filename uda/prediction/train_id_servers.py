"""Predictions as the test servers of ACDC and Dark Zurich take them: zips of train-id PNGs.

    labelTrainIds/<stem>_rgb_anon.png           8-bit gray, train ids 0 to 18
    confidence/<stem>_rgb_anon.png              Dark Zurich: 16-bit gray, 0 to 65535 for 0 to 1
    labelTrainIds_invalid/<stem>_rgb_anon.png   Dark Zurich: as labelTrainIds, 255 where invalid

A prediction is called as its image, whose stem is <recording>_frame_<number>. The folders are those
of which HRDA's, SePiCo's and DANNet's users report that the servers take them; without the others,
Dark Zurich's scores nothing. No pixel is marked as invalid here: its UIoU is then the IoU.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np

from uda.prediction.cityscapes_check import in_words
from uda.prediction.server_zip import Confidence, Labels, PngZip
from uda.utilities.errors import require

_STEM = re.compile(r"[^/\\]+_frame_[0-9]{6}")
_LABELS, _CONFIDENCE, _INVALID = "labelTrainIds", "confidence", "labelTrainIds_invalid"


@dataclass(frozen=True, slots=True)
class Server:
    """What a test server expects."""

    title: str
    images: int
    folders: tuple[str, ...]
    size: tuple[int, int] = (1080, 1920)  # pixels (height, width)


SERVERS = {
    "acdc": Server("ACDC", 2000, (_LABELS,)),
    "dark_zurich": Server("Dark Zurich", 151, (_LABELS, _CONFIDENCE, _INVALID)),
}


class TrainIdZip(PngZip):
    """Writes such a zip, see `PngZip`."""

    def __init__(
        self, path: Path, server: Server, *, stems: Sequence[str], size: tuple[int, int]
    ) -> None:
        self.server = server
        super().__init__(path, stems=stems, size=size)

    def check_names(self, stems: Sequence[str]) -> None:
        for stem, times in Counter(stems).items():
            require(
                _STEM.fullmatch(stem) is not None,
                f"{stem} is not an image name of {self.server.title}, such as "
                "GOPR0364_frame_000001, by which the server finds its prediction; export its test "
                "split",
            )
            require(times == 1, f"{times} images are called {stem}; export one split at a time")

    def add(self, stem: str, train_ids: Labels, confidence: Confidence | None) -> None:
        for folder in self.server.folders:
            values = train_ids
            if folder == _CONFIDENCE:
                assert confidence is not None, "it is asked for where the server wants it"
                values = np.rint(65535 * confidence.astype(np.float64)).astype(np.uint16)
            self.put(f"{folder}/{stem}_rgb_anon.png", values)

    def check(self, partial: Path, path: Path) -> None:
        with ZipFile(partial) as archive:
            names = Counter(archive.namelist())
        lacking = [
            name
            for folder in self.server.folders
            for stem in self._stems
            if names[name := f"{folder}/{stem}_rgb_anon.png"] != 1
        ]
        require(not lacking, f"{path}: {lacking[:1]} is missing, as are {len(lacking) - 1} more")

    def report(self, path: Path, stems: Sequence[str], size: tuple[int, int]) -> str:
        server, count = self.server, len(stems)
        line = f"{count} train-id PNGs in {', '.join(server.folders)} for {server.title}: {path}"
        if (count, size) != (server.images, server.size):
            line += (
                f"; the server expects {server.images} of {in_words(server.size)}, these are "
                f"{count} of {in_words(size)}"
            )
        return line
