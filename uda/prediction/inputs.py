"""What a user gives to be predicted: folders, images, lists of images."""

from collections.abc import Sequence
from pathlib import Path

from uda.data.deep_images import Range
from uda.data.file_tree import PICTURES, files_below, pictures_below
from uda.data.files import Header, read_header
from uda.data.list_files import list_lines
from uda.data.picture_kinds import kinds_of_files
from uda.utilities.errors import InputError, require
from uda.utilities.reading import expanded, real, why

_LISTS = (".txt", ".lst")
_VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".gif")
_FORMATS = "PNG, JPEG, TIFF, BMP or WebP"


def listed_images(inputs: Sequence[Path], output: Path) -> dict[str, Path]:
    """The images that `inputs` stand for, by what their predictions below `output` are called: a
    path below a folder, with the folder's name where there are several inputs; a file's name.

    Raises InputError when there are none, when two would have one prediction, when predictions
    would lie among the images, as the next call would take them for such, and for videos.
    """
    found: dict[str, Path] = {}
    taken: dict[str, Path] = {}
    for given in inputs:
        for name, path in _images_of(given, output, alone=len(inputs) == 1).items():
            other = taken.setdefault(picture_name(name), path)
            if other != path:
                raise InputError(
                    f"the predictions of {other} and {path} would be one file, {name}: rename one, "
                    "or give the folder that holds both"
                )
            found[name] = path
    return found


def picture_name(image: str) -> str:
    """What the pictures made of an image are called: a/b.jpg becomes a/b.png."""
    return str(Path(image).with_suffix(".png"))


def conversions(paths: Sequence[Path], image_range: Range | None) -> list[str]:
    """What is to be said of images that are converted to 8-bit RGB; those that cannot be read are
    passed over."""
    headers = list[Header]()
    for path in paths:
        try:
            headers.append(read_header(path))
        except InputError:  # it is named when it is predicted
            continue
    return kinds_of_files(headers, image_range)


def _images_of(given: Path, output: Path, *, alone: bool) -> dict[str, Path]:
    suffix = given.suffix.lower()
    _refuse_video(given)
    if given.is_dir():
        require(
            not real(output).is_relative_to(real(given)),
            f"{output} is inside {given}, so its pictures would be read as images: choose another "
            "folder with --output DIR",
        )
        names = pictures_below(given)
        if not names:
            for name in files_below(given):
                _refuse_video(given / name)
        require(
            bool(names), f"there are no images ({_FORMATS}) below {given}: give another --images"
        )
        before = "" if alone else f"{real(given).name}/"
        return {f"{before}{name}": given / name for name in names}
    require(
        given.is_file(),
        f"--images {given} is not a folder and not a file: give folders, images or lists of images",
    )
    if suffix in _LISTS:
        return _listed(given)
    require(
        suffix in PICTURES,
        f"--images {given}: its name does not end as that of an image ({_FORMATS}) or of a list of "
        f"paths ({', '.join(_LISTS)}) does",
    )
    return {given.name: given}


def _listed(path: Path) -> dict[str, Path]:
    """The images in a list of paths, one per line, from here or from the list's folder."""
    try:
        lines = list_lines(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--images {path} cannot be read ({why(error)}): give a list of paths"
        ) from None
    found = {}
    for number, text in enumerate(map(str.strip, lines), 1):
        if not text or text.startswith("#"):
            continue
        places = (expanded(Path(text), f"--images {path}, line {number}"), path.parent / text)
        image = next((place for place in places if place.is_file()), None)
        if image is None:
            raise InputError(f"--images {path}, line {number}: {text} does not exist")
        _refuse_video(image)
        inside = not Path(text).is_absolute() and ".." not in Path(text).parts
        found[Path(text).as_posix() if inside else image.name] = image
    require(bool(found), f"--images {path} lists no image")
    return found


def _refuse_video(path: Path) -> None:
    require(
        path.suffix.lower() not in _VIDEOS or path.is_dir(),
        f"{path} is a video: make images of it, for example five a second with mkdir frames && "
        f"ffmpeg -i {path} -vf fps=5 frames/%06d.png, and give --images frames",
    )
