"""Instances of Fashionpedia's COCO files and of Kaggle's iMaterialist tables, image by image.

What is held in memory is where each image's instances stand in the file, not the instances.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol

from uda.data.datasets.fashion_classes import FASHION_CLASSES
from uda.data.preparation.coco_masks import Mask, Size, decode_kaggle, segmentation_mask
from uda.data.preparation.json_elements import JsonFile, Span
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import opened, why

_COLUMNS = ("ImageId", "EncodedPixels", "Height", "Width", "ClassId")  # of Kaggle's train.csv
_LONGEST_NAME = 200  # characters
_LONGEST_ROW = 2**26  # bytes; runs of a mask of 134 million pixels may need many


class Instance(NamedTuple):
    """One object of an image."""

    class_id: int  # position in FASHION_CLASSES
    mask: Mask  # (H, W)


class AnnotatedImage(NamedTuple):
    """What an annotation file says of an image, and where it says the rest."""

    file_name: str
    size: Size
    spans: list[Span]  # of its instances


class Annotations(Protocol):
    """An annotation file."""

    path: Path
    images: list[AnnotatedImage]  # in the file's order

    def instances(self, image: AnnotatedImage) -> Iterator[Instance]:
        """Those of `image` that belong to a group, one at a time.

        Raises InputError, naming file and image, for one that cannot be used.
        """


def read_annotations(path: Path) -> Annotations:
    """An annotation file: Kaggle's table if its name ends in .csv, otherwise COCO's JSON.

    Raises InputError when it cannot be read or is of other classes.
    """
    return KaggleTable(path) if path.suffix == ".csv" else CocoFile(path)


class CocoFile:
    """`instances_attributes_train2020.json` and its like."""

    def __init__(self, path: Path) -> None:
        """Raises InputError when it cannot be read, or its categories are not Fashionpedia's."""
        self.path = path
        self._file = JsonFile(path)
        by_id: dict[int, AnnotatedImage] = {}
        spans: list[tuple[int, Span]] = []
        categories = []
        for key, span in self._file.elements():
            if key == "images":
                image_id, image = self._image(span)
                by_id[image_id] = image
            elif key == "annotations":
                image_id, group = self._of_group(span)
                if group:
                    spans.append((image_id, span))
            elif key == "categories":
                categories.append(self._file.read(span))
        check_categories(categories, path)
        for image_id, span in spans:
            require(
                image_id in by_id,
                f"{path}: an annotation is of image {image_id}, which is not there",
            )
            by_id[image_id].spans.append(span)
        self.images = list(by_id.values())

    def instances(self, image: AnnotatedImage) -> Iterator[Instance]:
        for span in image.spans:
            annotation = self._file.read(span)
            with _naming(self.path, image):
                mask = segmentation_mask(annotation.get("segmentation"), image.size)
            yield Instance(annotation["category_id"], mask)

    def _image(self, span: Span) -> tuple[int, AnnotatedImage]:
        entry = self._entry(span, {"id": int, "file_name": str, "height": int, "width": int})
        name = entry["file_name"]
        require_plain_name(name, self.path)
        return entry["id"], AnnotatedImage(name, (entry["height"], entry["width"]), [])

    def _of_group(self, span: Span) -> tuple[int, int]:
        """The image and the group of an annotation."""
        entry = self._entry(span, {"image_id": int, "category_id": int})
        return entry["image_id"], group_of(entry["category_id"], self.path)

    def _entry(self, span: Span, fields: Mapping[str, type]) -> Mapping[str, Any]:
        entry = self._file.read(span)
        require(
            isinstance(entry, dict)
            and all(type(entry.get(name)) is kind for name, kind in fields.items()),
            f"{self.path}: {shown(entry)} needs {', '.join(fields)}, as in COCO's format",
        )
        return entry


class KaggleTable:
    """`train.csv` of iMaterialist (Fashion) 2019, or of 2020, which has one column more."""

    def __init__(self, path: Path) -> None:
        """Raises InputError when it cannot be read or has other columns."""
        self.path = path
        by_name: dict[str, AnnotatedImage] = {}
        with _opened(path) as file:
            header = file.readline().decode("utf-8-sig", "replace").strip()
            require(
                tuple(header.split(",")[: len(_COLUMNS)]) == _COLUMNS,
                f"{path} begins with {shown(header)}; allowed: {','.join(_COLUMNS)}",
            )
            begin = file.tell()
            while line := file.readline(_LONGEST_ROW):
                row, span = self._row(line), Span(begin, begin + len(line))
                image = by_name.setdefault(row.name, AnnotatedImage(row.name, row.size, []))
                require(image.size == row.size, f"{path}: {row.name} has several sizes")
                if group_of(row.class_id, path):
                    image.spans.append(span)
                begin = span.end
        self.images = list(by_name.values())

    def instances(self, image: AnnotatedImage) -> Iterator[Instance]:
        with _opened(self.path) as file:
            for span in image.spans:
                file.seek(span.begin)
                row = self._row(file.read(span.end - span.begin))
                with _naming(self.path, image):
                    mask = decode_kaggle(row.pixels, image.size)
                yield Instance(row.class_id, mask)

    def _row(self, line: bytes) -> "_Row":
        cells = line.decode("utf-8", "replace").strip().split(",")[: len(_COLUMNS)]
        try:
            name, pixels, height, width, classes = cells
            # 13_72: class 13 with attribute 72, of which there may be more.
            row = _Row(name, pixels, (_number(height), _number(width)), _number(classes, "_"))
        except ValueError:
            raise InputError(
                f"{self.path}: row {shown(','.join(cells))} is not {','.join(_COLUMNS)}"
            ) from None
        require_plain_name(name, self.path)
        return row


class _Row(NamedTuple):
    """A row of Kaggle's table."""

    name: str
    pixels: str
    size: Size
    class_id: int


def group_of(class_id: int, path: Path) -> int:
    """The group of a class; InputError, naming the file, when the class does not exist."""
    last = len(FASHION_CLASSES) - 1
    require(0 <= class_id <= last, f"{path}: class {shown(class_id)}; allowed: 0 to {last}")
    return FASHION_CLASSES[class_id].group


def check_categories(categories: Sequence[object], path: Path) -> None:
    """Raises InputError unless COCO's `categories` are Fashionpedia's, by id and name."""
    wanted = [{"id": row.id, "name": row.name} for row in FASHION_CLASSES]
    for index, expected in enumerate(wanted):
        entry = categories[index] if index < len(categories) else None
        found = entry if isinstance(entry, dict) else {}
        require(
            {key: found.get(key) for key in expected} == expected,
            f"{path}: category {index} is {shown(entry)}, Fashionpedia's is {expected}: give "
            "instances_attributes_train2020.json or instances_attributes_val2020.json",
        )
    require(
        len(categories) == len(wanted),
        f"{path} has {len(categories)} categories, Fashionpedia has {len(wanted)}",
    )


def require_plain_name(name: str, path: Path) -> None:
    """Raises InputError when an image's name could lead out of its folder."""
    require(
        0 < len(name) <= _LONGEST_NAME
        and name.isprintable()
        and not name.startswith(".")
        and not set(name) & set("/\\"),
        f"{path}: {shown(name)} is not a file name",
    )


def _number(text: str, until: str = " ") -> int:
    """The whole number that `text` spells, before `until` if that is there; ValueError if none."""
    digits = text.partition(until)[0].removesuffix(".0")
    if not (digits.isascii() and digits.isdecimal() and len(digits) < 10):
        raise ValueError(f"{digits} is not a whole number")
    return int(digits)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with opened(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path} cannot be read ({why(error)})") from None


@contextmanager
def _naming(path: Path, image: AnnotatedImage) -> Iterator[None]:
    """Says of which image an annotation is that cannot be used."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: an instance of {image.file_name}: {error}") from None
