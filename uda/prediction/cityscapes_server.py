"""Predictions as the Cityscapes test server takes them: one zip of label-id PNGs.

    <stem>_pred_labelIds.png     8-bit gray, label ids (not train ids), 0 where no class is given

The server's rules are in uda/prediction/cityscapes_check.py. One submitter's script also speaks of
100 MB per zip; nothing official was found to confirm it.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from uda.labels.spaces import CITYSCAPES
from uda.prediction.cityscapes_check import (
    SERVER_SIZE,
    STEM,
    UNLABELED,
    find_problems,
    in_words,
    raise_first,
)
from uda.prediction.server_zip import Confidence, Labels, PngZip
from uda.utilities.errors import require

TEST_IMAGES = 1525

_SAID_LIMIT = 100 * 10**6  # bytes; hearsay, see above, so it is mentioned and refuses nothing
_SUFFIX = "_pred_labelIds.png"


class ServerZip(PngZip):
    """Writes such a zip, see `PngZip`."""

    def check_names(self, stems: Sequence[str]) -> None:
        for stem, times in Counter(stems).items():
            require(
                STEM.fullmatch(stem) is not None,
                f"{stem} is not an image name of Cityscapes, such as berlin_000123_000019, by "
                "which the server finds its prediction; export a split of cityscapes",
            )
            require(times == 1, f"{times} images are called {stem}; export one split at a time")

    def add(self, stem: str, train_ids: Labels, confidence: Confidence | None) -> None:
        self.put(stem + _SUFFIX, CITYSCAPES.to_raw_ids(train_ids, ignored=UNLABELED))

    def check(self, partial: Path, path: Path) -> None:
        raise_first(find_problems(partial, self._stems, self._size), path)

    def report(self, path: Path, stems: Sequence[str], size: tuple[int, int]) -> str:
        count = len(stems)
        line = f"{count} label-id PNGs, checked against the server's rules: {path}"
        if (count, size) != (TEST_IMAGES, SERVER_SIZE):
            line += (
                f"; the server expects {TEST_IMAGES} of {in_words(SERVER_SIZE)}, these are {count} "
                f"of {in_words(size)}"
            )
        length = path.stat().st_size
        if length > _SAID_LIMIT:
            line += (
                f"; {length / 1e6:.0f} MB, and the server is said to take {_SAID_LIMIT / 1e6:.0f}"
            )
        return line
