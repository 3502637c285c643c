"""The files below a folder, in an order that does not depend on the file system."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import why

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
_DEEPEST = 64  # folders in folders


class Found(NamedTuple):
    """A file below a folder."""

    within: str  # its folder from there, with a slash at the end, or empty
    name: str


def files_below(folder: Path, *, levels: int | None = None) -> list[str]:
    """Sorted names of all files below `folder`, relative to it, with slashes; of no more folders
    than `levels` deep, 1 being `folder` alone.

    Hidden files and folders are left out, among them what a Mac leaves next to the files it copies.
    Links to folders are followed, each folder once. Raises InputError when a folder cannot be read,
    or they are nested too deeply.
    """
    return sorted(f"{within}{name}" for within, name in walk(folder, levels=levels))


def walk(folder: Path, *, levels: int | None = None, hidden: bool = False) -> Iterator[Found]:
    """The files that `files_below` lists, in any order, also the `hidden` ones."""
    seen: set[tuple[int, int]] = set()  # a link may lead to a folder above it
    waiting = [("", 1)]
    while waiting:
        within, level = waiting.pop()
        place = folder / within
        try:
            stat = place.stat()
            if (stat.st_dev, stat.st_ino) in seen:
                continue
            seen.add((stat.st_dev, stat.st_ino))
            with os.scandir(place) as entries:
                listed = [(entry.name, _is_folder(entry)) for entry in entries]
        except (OSError, ValueError) as error:
            raise InputError(
                f"{place} cannot be listed ({why(error)}): give a folder that exists and can be "
                "read"
            ) from None
        require(
            level <= _DEEPEST,
            f"{shown(str(place))} is more than {_DEEPEST} folders below {folder}: give a folder "
            "further down",
        )
        inner = []
        for name, is_folder in listed:
            if name.startswith(".") and not hidden:
                continue
            if not is_folder:
                yield Found(within, name)
            elif levels is None or level < levels:
                inner.append((f"{within}{name}/", level + 1))
        # Sorted, so that of several ways to one folder the same is taken everywhere.
        waiting += sorted(inner, reverse=True)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def pictures_below(folder: Path) -> list[str]:
    """Those of `files_below` whose names end as those of PNG, JPEG, TIFF, BMP and WebP files do,
    in any case."""
    return [name for name in files_below(folder) if name.lower().endswith(PICTURES)]
