"""A folder of predictions: pictures by kind, in the sub-folders of the images, and a manifest.

<folder>/ids/a/b.png           8-bit gray, train ids: the index in the manifest's classes
<folder>/colors/a/b.png        RGB, each class in its color
<folder>/overlays/a/b.png      RGB, the image half covered by the colors
<folder>/confidence/a/b.png    8-bit gray, the probability of the class times 255
<folder>/legend.png            the colors and their names
<folder>/predictions.json      see `write_manifest`
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.labels.spaces import LabelSpace
from uda.prediction.inputs import picture_name
from uda.prediction.pictures import legend_of, overlaid
from uda.utilities.atomic_files import clear_write_errors, replacing
from uda.utilities.distributed import is_main, wait_for_all
from uda.utilities.errors import InputError, require
from uda.utilities.locks import holds_nothing
from uda.utilities.reading import LARGE, read_bytes
from uda.utilities.sealed_json import sealed, unsealed
from uda.utilities.unfinished import UnfinishedFolder

MANIFEST = "predictions.json"
LEGEND = "legend.png"
FORMAT = "uda-predictions-1"
_LEGEND_WIDTH = 720  # pixels
_COVERED = 0.5  # of an overlay, by the colors

Kind = Literal["ids", "colors", "overlays", "confidence"]
Bytes = npt.NDArray[np.uint8]

KINDS: Mapping[Kind, str] = {
    "ids": "8-bit gray PNG; a pixel is a train id, which is the index of its class in classes",
    "colors": "RGB PNG; a pixel has the color of its class",
    "overlays": "RGB PNG; half image, half colors",
    "confidence": "8-bit gray PNG; a pixel is the probability of its class times 255, rounded",
}


class PixelClasses(NamedTuple):
    """What is known of one image's pixels."""

    image: Bytes | None  # (H, W, 3) RGB, needed where overlays are asked for
    train_ids: Bytes  # (H, W)
    confidence: npt.NDArray[np.float32] | None  # (H, W) probability, where it was asked for


class PredictionWriter:
    """Writes such a folder whole or not at all: files go to a sibling that is renamed at the end.

    Use as a context manager: leaving it by an exception removes what was written.
    """

    def __init__(self, folder: Path, *, label_space: LabelSpace, kinds: tuple[Kind, ...]) -> None:
        """Raises InputError when `folder` holds anything but predictions of such a writer."""
        self.kinds = kinds
        self._space = label_space
        self._unfinished = UnfinishedFolder(folder, check=partial(_check_own, folder))

    def __enter__(self) -> Self:
        self._unfinished.__enter__()
        return self

    def write(self, name: str, found: PixelClasses) -> None:
        """Stores every kind of picture of the image `name`, such as a/b.jpg."""
        for kind in self.kinds:
            path = self._unfinished.path / kind / picture_name(name)
            with clear_write_errors(path):
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(self._picture(kind, found)).save(path, compress_level=1)

    def _picture(self, kind: Kind, found: PixelClasses) -> Bytes:
        if kind == "ids":
            return found.train_ids
        if kind == "confidence":
            assert found.confidence is not None, "it was asked for"
            return np.rint(255 * found.confidence).astype(np.uint8)
        colors = self._space.colorize(found.train_ids)
        if kind == "colors":
            return colors
        assert found.image is not None, "overlays were asked for"
        return overlaid(found.image, colors, _COVERED)

    def finish(self, facts: Mapping[str, Any], images: list[str]) -> None:
        """Adds manifest and legend and gives the folder its name, once all processes are here.

        `images`: the names of all that were written, those of other processes among them."""
        wait_for_all()
        if is_main():
            folder = self._unfinished.path
            with replacing(folder / LEGEND) as file:
                legend_of(self._space, _LEGEND_WIDTH).save(file, "PNG")
            with replacing(folder / MANIFEST) as file:
                file.write(sealed(self._manifest(facts, images)))
        self._unfinished.finish()

    def _manifest(self, facts: Mapping[str, Any], images: list[str]) -> dict[str, Any]:
        space = self._space
        classes = zip(space.classes, space.palette, strict=True)
        return {
            "format": FORMAT,
            **facts,
            "label_space": space.name,
            "id_space": "trainIds",
            "classes": [{"id": i, "name": n, "color": c} for i, (n, c) in enumerate(classes)],
            "kinds": {kind: KINDS[kind] for kind in self.kinds},
            "images": sorted(images),
        }

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._unfinished.__exit__(kind, error, trace)


def _check_own(folder: Path) -> None:
    """Raises InputError unless `folder` is free, empty or holds what a writer left, all of it."""
    another = "choose another with --output DIR"
    require(
        not folder.is_symlink() and (folder.is_dir() or not folder.exists()),
        f"{folder} is not a folder, or is a link to one: {another}",
    )
    if holds_nothing(folder):
        return
    own = _files_of(folder / MANIFEST)
    require(
        own is not None,
        f"{folder} holds files, but no {MANIFEST} of this command: {another}",
    )
    everything = {path.relative_to(folder).as_posix() for path in folder.rglob("*")
                  if not path.is_dir() or path.is_symlink()}  # fmt: skip
    strangers = sorted(everything - (own or set()))
    if strangers:
        raise InputError(
            f"{folder} holds {strangers[0]} and {len(strangers) - 1} more files that are no "
            f"predictions of its {MANIFEST}: move them, or {another}"
        )


def _files_of(manifest: Path) -> set[str] | None:
    """The files that a manifest speaks of; None when it is not of this format."""
    try:
        content = unsealed(read_bytes(manifest, LARGE))
        if content["format"] != FORMAT:
            return None
        kinds, images = [str(kind) for kind in content["kinds"]], content["images"]
        pictures = {f"{kind}/{picture_name(name)}" for kind in kinds for name in images}
        return pictures | {MANIFEST, LEGEND}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
