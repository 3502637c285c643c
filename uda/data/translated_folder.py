"""A folder of translated images: what `uda translate` writes, and what reads it.

<folder>/images/00001.png     as the data set of the originals, so that its layout reads it
<folder>/labels/00001.png     links to the labels of the originals
<folder>/translation.json     see `TranslationManifest`
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image
from torch import Tensor

from uda.data.samples import KnownSplit, Layout, Sample
from uda.utilities.atomic_files import replacing
from uda.utilities.config_tree import from_plain
from uda.utilities.errors import InputError, require, shortened
from uda.utilities.reading import SMALL, read_bytes, why
from uda.utilities.sealed_json import sealed, unsealed

MANIFEST = "translation.json"
FORMAT = "uda-translation-1"
SUFFIXES = {"png": ".png", "jpeg": ".jpg"}

PictureFormat = Literal["png", "jpeg"]


@dataclass(kw_only=True, slots=True)
class TranslationManifest:
    """What a folder of translated images says about itself."""

    format: str = FORMAT
    method: str  # color, fourier, or that of the network
    translator: dict[str, str]  # its settings and, of a network, file, SHA-256 and preset
    dataset: str  # of the originals
    splits: tuple[str, ...]
    image_count: int
    images_sha256: str  # of the originals' names and sizes in bytes
    width: int | None  # of the translated images; None: that of their originals
    picture_format: PictureFormat
    quality: int | None = None  # of JPEG
    library_version: str
    finished: bool = False  # whether every image is there

    @property
    def digest(self) -> str:
        """SHA-256 of all that the pictures depend on; the version of the library is not part."""
        return hashlib.sha256(json.dumps(self.settings(), sort_keys=True).encode()).hexdigest()

    def settings(self) -> dict[str, object]:
        """The fields that another folder of the same content would share."""
        free = ("library_version", "finished")
        values = {name: value for name, value in asdict(self).items() if name not in free}
        return values | {"splits": list(self.splits)}

    @property
    def line(self) -> str:
        """One line for whoever trains on the folder."""
        file = self.translator.get("network", "")
        by = f"{self.method} ({file})" if file else self.method
        return f"{self.dataset} translated by {by}, {self.image_count} images, {self.digest[:12]}"

    def write(self, folder: Path) -> None:
        """Replaces the manifest of `folder`; WriteError when that is impossible."""
        with replacing(folder / MANIFEST) as file:
            file.write(sealed(asdict(self)))


def find_manifest(folder: Path) -> TranslationManifest | None:
    """The manifest of a data set's folder; None where no command of ours has translated it.

    Raises InputError when it is damaged.
    """
    path = folder / MANIFEST
    anew = "translate the images again, into another folder: uda translate --output DIR"
    try:
        values = unsealed(read_bytes(path, SMALL))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({why(error)}): {anew}") from None
    if isinstance(values, dict) and isinstance(values.get("splits"), list):
        values["splits"] = tuple(values["splits"])  # JSON has lists where we have tuples
    manifest = from_plain(TranslationManifest, values, origin=str(path))
    require(
        manifest.format == FORMAT,
        f"{path} is of format {shortened(manifest.format)}, allowed is {FORMAT}: {anew}",
    )
    return manifest


def is_translated(folder: Path) -> bool:
    """Whether a data set's folder holds translated images, all of them.

    Raises InputError when the translation is not finished, or its manifest is damaged.
    """
    manifest = find_manifest(folder)
    if manifest is None:
        return False
    require(
        manifest.finished,
        f"{folder} is an unfinished translation of {manifest.image_count} images: give the same "
        "uda translate command again, which continues it",
    )
    return True


def known_split(layout: Layout, folder: Path, split: str) -> KnownSplit | None:
    """What is known of a split of the data set in `folder`: what its publishers say or, of a
    translation, its manifest."""
    manifest, published = find_manifest(folder), layout.known.get(split)
    if manifest is None:
        return published
    if manifest.splits != (split,):
        return None
    return replace(published or KnownSplit(()), counts=(manifest.image_count,))


def images_digest(samples: Sequence[Sample]) -> str:
    """SHA-256 of the names and the sizes in bytes of these images, which are not read."""
    lines = [f"{sample.name} {sample.image.stat().st_size}\n" for sample in samples]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def encoded(image: Tensor, picture_format: PictureFormat, quality: int | None) -> bytes:
    """The file of an RGB image (3, H, W) uint8 on the CPU. JPEG of this `quality`, 1 to 100,
    with colors at full resolution (4:4:4)."""
    picture = Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    file = io.BytesIO()
    if picture_format == "jpeg":
        picture.save(file, "JPEG", quality=quality, subsampling=0)
    else:
        picture.save(file, "PNG", compress_level=4)
    return file.getvalue()
