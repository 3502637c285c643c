"""Data sets described by a TOML file, as a `Layout` like any other."""

import os
from pathlib import Path

from uda.data.described.file import Description, read_description
from uda.data.samples import Layout
from uda.utilities.errors import require

_SUFFIX = ".toml"


def is_described(name: str) -> bool:
    """Whether `name` is the file of a described data set, not a built-in name."""
    return name.endswith(_SUFFIX)


def described_layout(name: str) -> Layout:
    """The data set that the TOML file `name` describes; see `described_file`.

    Raises InputError when the file does not exist or cannot be used.
    """
    path = described_file(name)
    require(
        path.is_file(),
        f"{name} does not exist: give the path of a TOML file that describes a data set, relative "
        "to the current folder or to UDA_DATA",
    )
    return layout_of(read_description(path))


def described_file(name: str) -> Path:
    """Where the TOML file `name` is or should be: a path from here or else from UDA_DATA."""
    path = Path(name).expanduser()
    root = os.environ.get("UDA_DATA", "")
    if root and not path.is_absolute() and not path.exists():
        path = Path(root).expanduser() / path
    return path


def layout_of(description: Description) -> Layout:
    """The data set of a description; its folder is absolute, so below every data root."""
    return Layout(
        name=description.name,
        short_name=description.name,
        folder=str(description.root),
        splits=tuple(split.name for split in description.splits),
        parts={split.name: split for split in description.splits},
        seed=description.seed,
        named_by_path=True,
        label_space=description.space,
        note=f"as {description.file} says",
        description=description.content,
        domain=description.domain,
        orientation=description.orientation,
        image_range=description.image_range,
    )
