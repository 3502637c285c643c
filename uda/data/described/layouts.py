"""Data sets described by a TOML file: its samples, as those of any other `Layout`."""

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

from uda.data.described.file import Description, Split, read_description
from uda.data.described.patterns import Pattern, name_of
from uda.data.file_tree import files_below
from uda.data.samples import Layout, Sample, seeded_split
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError, require, shown

_SUFFIX = ".toml"
_SLASH = "__"  # in names of samples, which become names of files
_LARGEST_LIST = 2**26  # bytes
_LONGEST_NAME = 180  # bytes; names of files have a suffix, too

Values = tuple[str, ...]  # what the wildcards of an image's pattern stand for


def is_described(name: str) -> bool:
    """Whether `name` means a file that describes a data set, not one that this library knows."""
    return name.endswith(_SUFFIX)


def described_layout(name: str) -> Layout:
    """The data set that the TOML file `name` describes; see `described_file`.

    Raises InputError when there is no such file or it cannot be used.
    """
    path = described_file(name)
    require(
        path.is_file(),
        f"{name} does not exist: give the path of a TOML file that describes a data set, from the "
        "folder that the command is given in, or from UDA_DATA",
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
    splits = {split.name: split for split in description.splits}

    def folders(root: Path, name: str) -> tuple[Path, Path]:
        split = splits[name]
        images = root / split.images[0].folder(split.folder)
        labels = split.labels
        return images, images if labels is None else root / labels.folder(split.folder)

    def label_file(root: Path, name: str, image: Path) -> Path:
        split = splits[name]
        path = image.relative_to(root).as_posix()
        values = (pattern.match(path, split.folder) for pattern in split.images)
        found = next((value for value in values if value is not None), None)
        if split.labels is None or found is None:  # it has none, or is an image of another split
            return root / f"no labels of {path}"
        return root / split.labels.write(found, split.folder)

    first = description.splits[0]
    return Layout(
        name=description.name,
        short_name=description.name,
        folder=str(description.root),
        splits=tuple(splits),
        label_space=description.space,
        list_samples=partial(_list_samples, description),
        expected=f"what {description.file} says: " + ", ".join(p.text for p in first.images),
        folders=folders,
        image_suffix=first.images[0].suffix,
        label_suffix=first.labels.suffix if first.labels else "",
        find_labels=label_file,
        description=description.content,
        unlabeled=tuple(name for name, split in splits.items() if split.labels is None),
    )


def _list_samples(description: Description, root: Path, name: str, labeled: bool) -> list[Sample]:
    """The samples of a split, sorted by name. Without `labeled` no place of a label is made up."""
    split = next(split for split in description.splits if split.name == name)
    found = _images(root, split)
    chosen = _chosen(description, split, found)
    labels: dict[str, Path | None] = dict.fromkeys(chosen)
    if labeled:
        labels |= _label_files(root, split, {image: found[image][1] for image in chosen})
    return [
        Sample(description.name, _stem(image, split), root / found[image][0], labels[image])
        for image in chosen
    ]


def _images(root: Path, split: Split) -> dict[str, tuple[str, Values]]:
    """Path and wildcards of each image by its name, sorted; InputError when two have one name."""
    found: dict[str, tuple[str, Values]] = {}
    for pattern in split.images:
        for path in _files(root, pattern.folder(split.folder), pattern.text):
            values = pattern.match(path, split.folder)
            if values is None or _is_label(path, pattern, split):
                continue
            name = name_of(values)
            other = found.setdefault(name, (path, values))[0]
            require(
                other == path,
                f"{root}: {other} and {path} are both called {name}: rename one, or make the "
                f"pattern {pattern.text} more particular",
            )
    return dict(sorted(found.items()))


def _files(root: Path, folder: str, pattern: str) -> Iterator[str]:
    """Every file below a folder of `root`, as a path from `root`."""
    top = root / folder
    require(top.is_dir(), f"{top} does not exist; expected {pattern} below {root}")
    prefix = f"{folder}/" if folder else ""
    return (prefix + path for path in files_below(top))


def _is_label(path: str, image: Pattern, split: Split) -> bool:
    """Whether a file that could be an image is one of labels: it fits a more particular pattern."""
    labels = split.labels
    particular = labels is not None and labels.literals > image.literals
    return labels is not None and particular and labels.match(path, split.folder) is not None


def _chosen(description: Description, split: Split, found: Iterable[str]) -> list[str]:
    """Those names that belong to the split, sorted."""
    names = list(found)
    if split.list_file:
        return _listed(description.root / split.list_file, names)
    if not split.share:
        return names
    drawn = [other for other in description.splits if other.share]
    shares = [other.share for other in drawn]
    parts = seeded_split(len(names), [*shares, max(0.0, 1 - sum(shares))], seed=description.seed)
    return [names[place] for place in parts[drawn.index(split)]]


def _listed(path: Path, names: list[str]) -> list[str]:
    """The names in a list file, sorted; InputError when one has no image or stands there twice."""
    try:
        require(
            path.is_file(), f"{path} does not exist, or is no file: a list of names is expected"
        )
        require(path.stat().st_size <= _LARGEST_LIST, f"{path} is too large for a list of names")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): give a list of names") from None
    listed = [line.strip() for line in lines if line.strip()]
    known, seen = set(names), set[str]()
    for name in listed:
        require(name not in seen, f"{path} lists {shown(name)} twice")
        if name not in known:
            raise InputError(f"{path}: there is no image called {shown(name)}; "
                             f"{suggest(name, names[:1000])}")  # fmt: skip
        seen.add(name)
    return sorted(seen)


def _label_files(root: Path, split: Split, images: Mapping[str, Values]) -> dict[str, Path]:
    """The label file of each image; InputError, naming the first, when some are not there."""
    pattern = split.labels
    if pattern is None:
        raise InputError(
            f'{root}: split {split.name} has no labels by its description; give labels = "...", '
            "or use it as a target, which needs none"
        )
    there = set(_files(root, pattern.folder(split.folder), pattern.text))
    paths = {image: pattern.write(values, split.folder) for image, values in images.items()}
    missing = [image for image, path in paths.items() if path not in there]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(images)} images have no label, the first is "
            f"{missing[0]}; expected {paths[missing[0]]}: complete the labels, or remove the images"
        )
    return {image: root / path for image, path in paths.items()}


def _stem(name: str, split: Split) -> str:
    """The name of a sample, which no other has in all splits, with nothing that a file name could
    not hold; InputError when it is too long."""
    shared = any(pattern.has_split for pattern in split.images)
    full = f"{split.name}/{name}" if shared else name
    stem = full.replace("/", _SLASH)
    require(
        stem.isprintable() and ":" not in stem and len(stem.encode()) <= _LONGEST_NAME,
        f"image {shown(name)}: its name becomes one of a file, {_LONGEST_NAME} bytes at most and "
        "without a colon: rename it",
    )
    return stem
