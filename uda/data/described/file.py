"""Reads and checks the TOML file that describes a data set. See docs/own_data.md."""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict, get_type_hints

import uda.data.datasets
from uda.data.deep_images import Range
from uda.data.described.classes import Class, label_space_of
from uda.data.described.mapping import mapping_text
from uda.data.patterns import Pattern, is_folder
from uda.data.samples import Layout, Split
from uda.labels.spaces import LabelSpace
from uda.utilities.config_tree import suggest
from uda.utilities.discovery import instances_of
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import SMALL, expanded, read_text, why
from uda.utilities.schema import Plain, fault

_LONGEST_LINE = 2**14  # characters; tomllib takes long for keys of thousands of dots
_ORIENTATIONS: tuple[Literal["", "stored", "upright"], ...] = ("", "stored", "upright")
_SPARE = ("/", "\\", ":", ",")  # not in names: they are parts of paths and of lists


class _Split(TypedDict, total=False):
    folder: str
    list: str
    share: float | int
    images: Plain
    labels: str


class _File(TypedDict):
    name: NotRequired[str]
    root: NotRequired[str]
    images: NotRequired[Plain]
    labels: NotRequired[str]
    splits: Plain
    seed: NotRequired[int]
    classes: NotRequired[list[Class]]
    classes_of: NotRequired[str]
    ignore: NotRequired[list[int]]
    ignore_colors: NotRequired[list[list[int]]]
    ignore_polygons: NotRequired[list[str]]
    mapping: NotRequired[str]
    mirror_swaps: NotRequired[list[list[str]]]
    domain: NotRequired[str]
    label_channel: NotRequired[str]
    reduce_zero_label: NotRequired[bool]
    orientation: NotRequired[str]
    image_range: NotRequired[list[float | int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """The content of such a file."""

    file: Path
    name: str
    root: Path  # absolute
    splits: tuple[Split, ...]
    seed: int  # of shares
    space: LabelSpace
    domain: Literal["", "source"]  # see `Layout`
    orientation: Literal["", "stored", "upright"]  # see `Layout`
    image_range: Range | None  # see `Layout`
    content: str  # all that decides about samples, sorted by key: comments do not change it


def read_description(path: Path) -> Description:
    """The description in a TOML file; see `description_of`."""
    return description_of(_text(path), path)


def description_of(text: str, path: Path) -> Description:
    """The description in `text`, which is or will be that of the TOML file `path`.

    Raises InputError, naming file and key, for a key that is missing, unknown or of the wrong type,
    and for values that contradict each other.
    """
    values = _parsed(text, path)
    refuse_unknown(values, _File, str(path))
    wrong = fault(values, _File)
    require(not wrong, f"{path}: {wrong}")
    name = _name(values.get("name", path.stem), f"{path}: name")
    domain = values.get("domain", "source")
    require(
        domain == "source",
        f'{path}: domain is {shown(domain)}; allowed: "source", for labels of another domain than '
        "the one that is scored",
    )
    splits = tuple(_splits(values, path))
    shares = sum(split.share for split in splits)
    require(shares <= 1 + 1e-9, f"{path}: the shares of splits sum to {shares:g}; allowed: up to 1")
    require(
        "seed" not in values or shares > 0,
        f"{path}: seed is given, but no split has a share: remove seed",
    )
    return Description(
        file=path,
        name=name,
        root=_beside(path, values.get("root", "."), "root").absolute(),
        splits=splits,
        seed=values.get("seed", 0),
        space=_space(values, name, path),
        domain="source" if "domain" in values else "",
        orientation=_orientation(values, path),
        image_range=_image_range(values, path),
        content=_content(values, path),
    )


def _content(values: Mapping[str, Any], path: Path) -> str:
    """All that decides about samples: what the file says, and what a file of a mapping does."""
    said = {key: values[key] for key in sorted(values) if key not in ("root", "domain")}
    mapping = _mapping(values, path)
    return repr(said) + (mapping_text(mapping) if mapping is not None else "")


def _space(values: Mapping[str, Any], name: str, path: Path) -> LabelSpace:
    """The label space of the file's own classes or, for images without labels, of another set's."""
    both = "classes" in values and "classes_of" in values
    require(not both, f"{path} has classes and classes_of: give one of them")
    require(
        "classes" in values or "classes_of" in values,
        f"{path} has no classes: give [[classes]], or classes_of = the data set or TOML file that "
        "has them",
    )
    if "classes" in values:
        return label_space_of(values, name=name, origin=str(path), mapping=_mapping(values, path))
    other = values["classes_of"]
    known = {layout.name: layout for layout in instances_of(uda.data.datasets, Layout)}
    if other in known:
        return replace(known[other].label_space, name=name)
    require(
        other.endswith(".toml"),
        f"{path}: classes_of is {shown(other)}; {suggest(other, known)}, or a path of a .toml file",
    )
    file = _beside(path, other, "classes_of")
    require(file.absolute() != path.absolute(), f"{path}: classes_of is this file: give another")
    found = _parsed(_text(file), file)
    require("classes" in found, f"{path}: classes_of: {file} has no classes of its own")
    return replace(read_description(file).space, name=name)


def _mapping(values: Mapping[str, Any], path: Path) -> Path | None:
    """The file of the mapping, from the TOML file's folder."""
    if "mapping" not in values:
        return None
    return _beside(path, values["mapping"], "mapping")


def _beside(path: Path, text: str, key: str) -> Path:
    """A path that the file `path` gives from its own folder."""
    require("\0" not in text, f"{path}: {key} is {shown(text)}, which no file is called")
    return path.parent / expanded(Path(text), f"{path}: {key}")


def _orientation(values: Mapping[str, Any], path: Path) -> Literal["", "stored", "upright"]:
    found = values.get("orientation", "")
    for known in _ORIENTATIONS:
        if found == known:
            return known
    raise InputError(
        f"{path}: orientation is {shown(found)}; allowed: "
        '"upright" (labels as viewers show a photograph), "stored" (labels as its pixels are)'
    )


def _image_range(values: Mapping[str, Any], path: Path) -> Range | None:
    if "image_range" not in values:
        return None
    found = values["image_range"]
    require(
        len(found) == 2 and -math.inf < found[0] < found[1] < math.inf,
        f"{path}: image_range is {shown(found)}; allowed: the values of more than 8 bits that "
        "become black and white, such as [0, 4095]",
    )
    return float(found[0]), float(found[1])


def _text(path: Path) -> str:
    try:
        return read_text(path, SMALL, "utf-8")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give a TOML file") from None
    except (OSError, ValueError) as error:
        raise _no_toml(path, error) from None


def _parsed(text: str, path: Path) -> dict[str, Any]:
    longest = max(map(len, text.split("\n")))
    require(
        longest <= _LONGEST_LINE,
        f"{path} has a line of {longest} characters; allowed: {_LONGEST_LINE}: break it up",
    )
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise _no_toml(path, error) from None


def _no_toml(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} cannot be read as TOML ({why(error)}): fix it")


def refuse_unknown(values: Mapping[str, object], schema: Any, where: str) -> None:  # noqa: ANN401
    """Raises InputError, with the nearest known key, when `values` has an unknown one."""
    known = get_type_hints(schema)
    odd = next((key for key in values if key not in known), None)
    if odd is not None:
        raise InputError(f"{where}: there is no key {shown(odd)}; {suggest(odd, known)}")


def _name(name: str, where: str) -> str:
    """A name of a data set or of a split, which becomes a part of file names."""
    fine = 0 < len(name.encode()) <= 100 and name.isprintable() and not name.startswith((".", "-"))
    require(
        fine and not any(c in name for c in _SPARE) and name == name.strip(),
        f"{where} is {shown(name)}; allowed: a name without {' '.join(_SPARE)}, not beginning with "
        "a dot",
    )
    return name


def _splits(values: Mapping[str, Any], path: Path) -> Iterable[Split]:
    given = values["splits"]
    if isinstance(given, list):
        wrong = fault(given, list[str], "splits")
        require(not wrong, f"{path}: {wrong}")
        require(len(set(given)) == len(given), f"{path}: splits names one twice: {shown(given)}")
        given = {name: {} for name in given}
    wrong = fault(given, dict[str, _Split], "splits")
    require(not wrong, f'{path}: {wrong} (write splits = ["train", "val"], or a table)')
    require(bool(given), f"{path}: splits is empty; name at least one, such as train")
    kinds = {kind for entry in given.values() for kind in ("list", "share") if kind in entry}
    require(
        len(kinds) < 2,
        f"{path}: some splits have a list and some a share, which could overlap: use one kind",
    )
    for name, entry in given.items():
        where = f"{path}: splits.{name}"
        refuse_unknown(entry, _Split, where)
        split = _split(_name(name, f"{path}: splits, the name"), entry, values, where)
        alone = len(given) == 1 or split.list_file or split.share
        require(
            bool(alone) or "images" in entry or all(p.has_split for p in split.images),
            f"{where} has the images of the other splits: write {{split}} into images, or "
            "give each split images, a list or a share",
        )
        yield split


def _split(name: str, entry: Mapping[str, Any], values: Mapping[str, Any], where: str) -> Split:
    images = _images(entry.get("images", values.get("images")), where)
    labels = entry.get("labels", values.get("labels"))
    pattern = Pattern(labels, f"{where}: labels") if labels else None
    for image in images:
        require(
            pattern is None or pattern.wildcards == image.wildcards,
            f"{where}: labels {shown(labels)} must have the wildcards of images "
            f"{shown(image.text)}, in the same order: {' '.join(image.wildcards)}",
        )
    require(
        len({image.wildcards for image in images}) == 1,
        f"{where}: all patterns of images need the same wildcards in the same order",
    )
    has_split = any(p.has_split for p in (*images, *([pattern] if pattern else [])))
    require(
        "folder" not in entry or has_split,
        f"{where}.folder replaces {{split}}, but no pattern contains {{split}}: remove folder",
    )
    share = float(entry.get("share", 0))
    require(
        "share" not in entry or 0 < share <= 1,
        f"{where}.share is {share:g}; allowed: above 0, up to 1",
    )
    require(
        "share" not in entry or not has_split,
        f"{where}.share is sampled from all images: remove {{split}} from the patterns",
    )
    folder = entry.get("folder", name)
    require(
        not has_split or is_folder(folder),
        f"{where}: {{split}} stands for {shown(folder)}; allowed: a folder below root, without "
        "wildcards",
    )
    return Split(name, images, pattern, folder, entry.get("list", ""), share)


def _images(given: object, where: str) -> tuple[Pattern, ...]:
    require(given is not None, f"{where} has no images; give a pattern such as images/{{name}}.jpg")
    texts = [given] if isinstance(given, str) else given
    wrong = fault(texts, list[str], "images")
    require(not wrong and bool(texts), f"{where}: {wrong or 'images is empty'}")
    assert isinstance(texts, list)
    return tuple(Pattern(text, f"{where}: images") for text in texts)
