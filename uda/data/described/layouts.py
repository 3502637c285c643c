"""Data sets of the user's, as a `Layout` like any other: those that a TOML file describes, and
folders of images, which are targets."""

import os
from functools import lru_cache
from pathlib import Path, PurePosixPath

from uda.data.described.file import Description, read_description
from uda.data.file_tree import PICTURES, pictures_below
from uda.data.patterns import Pattern
from uda.data.samples import Layout, Split
from uda.labels.spaces import NO_CLASSES
from uda.utilities.errors import require
from uda.utilities.reading import expanded

_SUFFIX = ".toml"


def is_described(name: str) -> bool:
    """Whether `name` is a path, of the file that describes a data set or of a folder of images, and
    not a built-in name."""
    return name.endswith(_SUFFIX) or "/" in name


def described_layout(name: str) -> Layout:
    """The data set that the TOML file `name` describes, or that the images in the folder `name`
    are; see `described_file`.

    Raises InputError when it does not exist or cannot be used.
    """
    path = described_file(name)
    if not name.endswith(_SUFFIX):
        return _folder_of_images(path)
    require(
        path.is_file(),
        f"{name} does not exist: give the path of a TOML file that describes a data set, relative "
        "to the current folder or to UDA_DATA",
    )
    return layout_of(read_description(path))


def described_file(name: str) -> Path:
    """Where the file or folder `name` is or should be: a path from here or else from UDA_DATA."""
    path = expanded(Path(name), "the data set")
    root = os.environ.get("UDA_DATA", "")
    if root and not path.is_absolute() and not path.exists():
        path = expanded(Path(root), "UDA_DATA") / path
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


def plain_name(folder: Path, *, otherwise: str) -> str:
    """The folder's name with nothing but letters, digits and "_-."; `otherwise` if none is left."""
    plain = "".join(c if c.isalnum() or c in "_-." else "_" for c in folder.absolute().name)
    return plain.strip("._-") or otherwise


@lru_cache(maxsize=16)  # a start asks for the layout of a data set many times
def _suffixes(folder: Path) -> tuple[str, ...]:
    """How the names of the pictures below a folder end; InputError when there are none."""
    found = {PurePosixPath(name).suffix for name in pictures_below(folder)}
    require(bool(found), f"{folder} has no images ({', '.join(PICTURES)}): give a folder that has")
    return tuple(sorted(found))


def _folder_of_images(path: Path) -> Layout:
    """All pictures below a folder, as the split `train` of a data set without labels or classes of
    its own."""
    require(
        path.is_dir(),
        f"{path} does not exist or is not a folder: give a folder of images, or the path of a TOML "
        "file that describes a data set",
    )
    suffixes = _suffixes(path.absolute())
    images = tuple(Pattern(f"{{name}}{suffix}", str(path)) for suffix in suffixes)
    name = plain_name(path, otherwise="images")
    return Layout(
        name=name,
        short_name=name,
        folder=str(path.absolute()),
        splits=("train",),
        parts={"train": Split("train", images, None, folder="")},
        named_by_path=True,
        label_space=NO_CLASSES,
        note=f"all images below {path}",
        description=f"the images below {path.absolute().name}",
        orientation="",
    )
