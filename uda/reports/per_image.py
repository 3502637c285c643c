"""Counts of pixels of every image, kept beside a run: what a paired comparison needs."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from uda.reports.looking import Looked
from uda.utilities.atomic_files import replacing
from uda.utilities.errors import InputError, require, shown

NAME = "per_image.npz"
_LARGEST = 2**30  # bytes of the counts, unpacked


@dataclass(frozen=True, slots=True)
class PerImage:
    """Confusion matrices of single images, of one snapshot by one protocol."""

    snapshot: str  # file name
    protocol: str
    classes: tuple[str, ...]
    stems: tuple[str, ...]
    unscored: tuple[int, ...]  # classes that are in no mean
    counts: npt.NDArray[np.int64]  # (N, C, C), row = label, column = prediction


def save_per_image(folder: Path, looked: Looked, snapshot: str) -> Path:
    """Writes per_image.npz into a run's folder, whole or not at all; its path.

    Raises WriteError when it cannot be written.
    """
    facts = {
        "snapshot": snapshot,
        "protocol": looked.protocol,
        "classes": looked.space.report_names,
        "stems": looked.stems,
        "unscored": looked.unscored,
    }
    path = folder / NAME
    with replacing(path) as file:
        np.savez_compressed(
            file,
            facts=np.frombuffer(json.dumps(facts).encode(), np.uint8),
            counts=np.stack(looked.counts).astype(np.int32),  # an image has less than 2**31 pixels
        )
    return path


def read_per_image(folder: Path) -> PerImage | None:
    """What `save_per_image` wrote into a run's folder; None if there is nothing.

    Raises InputError when the file is damaged.
    """
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        require(size <= _LARGEST, f"{path} is too large")
        with np.load(path, allow_pickle=False) as found:
            facts: dict[str, Any] = json.loads(found["facts"].tobytes())
            counts = found["counts"].astype(np.int64)
        made = PerImage(
            str(facts["snapshot"]),
            str(facts["protocol"]),
            tuple(map(str, facts["classes"])),
            tuple(map(str, facts["stems"])),
            tuple(map(int, facts["unscored"])),
            counts,
        )
    except Exception as error:  # zip, numpy and JSON each have their own
        raise InputError(
            f"{path} is damaged ({shown(error)}): remove it, or write it again with uda report "
            "RUN --images N"
        ) from None
    classes = len(made.classes)
    fits = counts.shape == (len(made.stems), classes, classes) and (counts >= 0).all()
    require(
        bool(fits) and len(set(made.stems)) == len(made.stems) > 0,
        f"{path} is damaged (its counts {counts.shape} are not those of {len(made.stems)} images "
        f"and {classes} classes): remove it, or write it again with uda report RUN --images N",
    )
    return made
