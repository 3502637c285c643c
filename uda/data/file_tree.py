"""The files below a folder, in an order that does not depend on the file system."""

import os
from pathlib import Path

from uda.utilities.errors import InputError

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")


def files_below(folder: Path, *, levels: int | None = None) -> list[str]:
    """Sorted names of all files below `folder`, relative to it, with slashes; of no more folders
    than `levels` deep, 1 being `folder` alone.

    Hidden files and folders are left out, among them what a Mac leaves next to the files it copies.
    Links to folders are followed, each folder once. Raises InputError when a folder cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be listed ({error.strerror}): give a folder that exists and "
            "can be read"
        )

    found: list[str] = []
    seen: set[tuple[int, int]] = set()  # a link may lead to a folder above it
    for parent, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        stat = Path(parent).stat()
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        within = Path(parent).relative_to(folder)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if levels is not None and len(within.parts) + 1 >= levels:
            folders.clear()
        prefix = "" if within == Path() else f"{within.as_posix()}/"
        found += [prefix + name for name in names if not name.startswith(".")]
    return sorted(found)


def pictures_below(folder: Path) -> list[str]:
    """Those of `files_below` whose names end as those of PNG, JPEG, TIFF, BMP and WebP files do,
    in any case."""
    return [name for name in files_below(folder) if name.lower().endswith(PICTURES)]
