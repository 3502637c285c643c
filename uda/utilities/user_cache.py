"""The folder in which the library remembers what it could find out again."""

import os
from contextlib import suppress
from pathlib import Path

from uda.utilities.reading import expanded


def cache_folder() -> Path:
    """The user's cache: UDA_CACHE, else uda/ in XDG_CACHE_HOME or ~/.cache."""
    own = os.environ.get("UDA_CACHE", "")
    base = os.environ.get("XDG_CACHE_HOME", "") or "~/.cache"
    return expanded(Path(own or Path(base) / "uda"), "the cache folder (UDA_CACHE)")


def cache_file(name: str) -> Path:
    """A file in the user's cache folder, which is created if possible."""
    folder = cache_folder()
    with suppress(OSError):  # what is not remembered is read again
        folder.mkdir(parents=True, exist_ok=True)
    return folder / name
