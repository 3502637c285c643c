"""DensePose-COCO annotations to label maps of body parts.

The masks of a person's parts lie in a frame of 256x256 that is stretched over the bounding box.
Format: DENSEPOSE_DATASETS.md of facebookresearch/detectron2.
"""

import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.datasets.body_parts import BODY_PARTS
from uda.data.files import read_header
from uda.data.preparation.coco_masks import decode_rle, segmentation_mask
from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.atomic_files import clear_write_errors, remove_partial, replacing
from uda.utilities.errors import InputError, require, shown
from uda.utilities.locks import sole_writer
from uda.utilities.reading import parsed_json, read_bytes
from uda.utilities.weight_files import reason

Labels = npt.NDArray[np.uint8]
Size = tuple[int, int]  # (height, width)

# The order of `dp_masks` as documented, in our names.
PARTS = (
    "torso", "right hand", "left hand", "left foot", "right foot", "right thigh", "left thigh",
    "right calf", "left calf", "left upper arm", "right upper arm", "left forearm",
    "right forearm", "head",
)  # fmt: skip
_PART_IDS = tuple(BODY_PARTS.classes.index(part) for part in PARTS)
_LARGEST = 2**29  # bytes; densepose_train2014.json has a quarter
_PERSON = 1  # COCO's category


@dataclass(frozen=True, slots=True)
class _Person:
    """One annotation of a person."""

    id: object
    box: tuple[float, float, float, float]  # x, y, width, height in pixels of the image
    masks: Sequence[Any]  # of the parts; empty where nobody annotated them
    segmentation: object  # polygons or run lengths; none of some

    @property
    def area(self) -> float:
        return self.box[2] * self.box[3]


@dataclass(frozen=True, slots=True)
class Prepared:
    """How many images of an annotation file were written, and how many were not."""

    written: int
    left_out: int  # without a person with annotated parts
    people: int
    ignored_people: int  # in the images written, without annotated parts


def label_map(people: Sequence[_Person], size: Size) -> Labels:
    """Train ids (H, W) of the people in an image; who has no annotated parts is 255, not
    background.

    People with smaller boxes are painted over those with larger ones, and annotated people over
    those that are ignored: to their outline where one is known, else to their box.
    Raises InputError, naming the annotation, when a mask is damaged.
    """
    labels = np.zeros(size, np.uint8)
    for person in people:
        if not person.masks:
            labels[_outline(person, size)] = IGNORE_INDEX
    annotated = [person for person in people if person.masks]
    for person in sorted(
        annotated, key=lambda one: -one.area
    ):  # at equal area, the later one on top
        _paint(labels, person)
    return labels


def _outline(person: _Person, size: Size) -> npt.NDArray[np.bool_]:
    if person.segmentation:
        try:
            return segmentation_mask(person.segmentation, size)
        except InputError as error:
            raise InputError(f"annotation {shown(person.id)}: {error}") from None
    mask = np.zeros(size, np.bool_)
    rows, columns = _inside(person.box, size)
    mask[rows, columns] = True
    return mask


def _paint(labels: Labels, person: _Person) -> None:
    """Each pixel whose center lies in the box gets the part at that place of the frame."""
    parts = _parts(person)
    rows, columns = _inside(person.box, (labels.shape[0], labels.shape[1]))
    x, y, width, height = person.box
    down = (np.arange(rows.start, rows.stop) + 0.5 - y) / height * parts.shape[0]
    across = (np.arange(columns.start, columns.stop) + 0.5 - x) / width * parts.shape[1]
    seen = parts[np.ix_(down.astype(np.intp), across.astype(np.intp))]
    region = labels[rows, columns]
    region[seen > 0] = seen[seen > 0]


def _parts(person: _Person) -> Labels:
    """Train ids in the frame of a person's box, 0 where there is no part; later parts lie over
    earlier ones."""
    frame: Labels | None = None
    for part, mask in zip(_PART_IDS, person.masks, strict=True):
        if not mask:
            continue
        try:
            found = decode_rle(mask["counts"], (int(mask["size"][0]), int(mask["size"][1])))
        except (InputError, KeyError, TypeError, IndexError, ValueError, OverflowError) as error:
            raise InputError(
                f"annotation {shown(person.id)}: the mask of its {BODY_PARTS.classes[part]} is "
                f"damaged ({reason(error)}): download the annotations again"
            ) from None
        frame = np.zeros(found.shape, np.uint8) if frame is None else frame
        require(
            frame.shape == found.shape,
            f"annotation {shown(person.id)}: its masks are of different sizes",
        )
        frame[found] = part
    assert frame is not None, "who has no mask is not annotated"
    return frame


def _inside(box: tuple[float, float, float, float], size: Size) -> tuple[slice, slice]:
    """Rows and columns of the image whose centers lie in the box."""
    x, y, width, height = box

    def between(start: float, length: float, end: int) -> slice:
        first = np.clip(np.ceil(start - 0.5), 0, end)
        return slice(int(first), int(np.clip(np.ceil(start + length - 0.5), first, end)))

    return between(y, height, size[0]), between(x, width, size[1])


def read_people(path: Path) -> dict[str, list[_Person]]:
    """The people in each image of an annotation file, by the image's file name.

    Raises InputError when the file is missing or has other content.
    """
    try:
        content = parsed_json(read_bytes(path, _LARGEST))
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: give densepose_train2014.json or "
                         "densepose_coco_2014_train.json") from None  # fmt: skip
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a JSON file ({reason(error)}): download it again"
        ) from None
    try:
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        people: dict[str, list[_Person]] = {name: [] for name in names.values()}
        for annotation in content["annotations"]:
            if annotation.get("category_id", _PERSON) == _PERSON:
                people[names[annotation["image_id"]]].append(_person(annotation))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise InputError(
            f"{path} is not as COCO and DensePose write annotations ({reason(error)}): give "
            "densepose_train2014.json, as published"
        ) from None
    require(bool(people), f"{path} lists no images")
    return people


def _person(annotation: Mapping[str, Any]) -> _Person:
    """Raises InputError, ValueError or TypeError when it is not one."""
    x, y, width, height = (float(number) for number in annotation["bbox"])
    finite = all(abs(number) < 2**31 for number in (x, y, width, height))
    masks = annotation.get("dp_masks") or []
    require(
        finite and width > 0 and height > 0 and len(masks) in (0, len(PARTS)),
        f"annotation {shown(annotation.get('id'))} has bbox {shown(annotation['bbox'])} and "
        f"{len(masks)} masks; allowed: a box of some size, and {len(PARTS)} masks or none",
    )
    crowd = bool(annotation.get("iscrowd"))
    known = [] if crowd or not any(masks) else masks
    return _Person(annotation.get("id"), (x, y, width, height), known,
                   annotation.get("segmentation"))  # fmt: skip


def prepare(
    annotations: Path,
    images: Path,
    output: Path,
    *,
    split: str,
    progress: Callable[[int], None] = lambda count: None,
) -> Prepared:
    """Writes the images that have annotated people, and their label maps, as `split` of the data
    set in `output`; each file whole or not at all. Images without an annotated person are left out:
    what they show of people is unknown.

    Raises InputError when a file is missing or damaged, WriteError when the disk is full.
    """
    people = read_people(annotations)
    used = {name: found for name, found in people.items() if any(p.masks for p in found)}
    missing = [name for name in used if not (images / Path(name).name).is_file()]
    require(
        not missing,
        f"{images} lacks {len(missing)} of {len(used)} images, e.g. {missing[:1]}: give the folder "
        "train2014 or val2014 of COCO 2014, complete",
    )
    counts: dict[str, int] = defaultdict(int)
    with sole_writer(output, another="--output DIR", leave=False):
        for folder in (output / "images" / split, output / "labels" / split):
            with clear_write_errors(folder):
                folder.mkdir(parents=True, exist_ok=True)
                remove_partial(folder)
        for name, found in used.items():
            image = images / Path(name).name
            labels = label_map(found, read_header(image).size)
            _write_png(output / "labels" / split / f"{image.stem}.png", labels)
            _take_over(image, output / "images" / split / f"{image.stem}.jpg")
            counts["people"] += sum(bool(p.masks) for p in found)
            counts["ignored"] += sum(not p.masks for p in found)
            progress(1)
    return Prepared(len(used), len(people) - len(used), counts["people"], counts["ignored"])


def _write_png(path: Path, labels: Labels) -> None:
    with replacing(path) as file:
        Image.fromarray(labels).save(file, "PNG")


def _take_over(image: Path, path: Path) -> None:
    """A hard link to the file, or a copy if links are impossible; gray images in RGB, because a
    gray picture is refused as a misplaced label map."""
    if read_header(image).mode != "RGB":
        with Image.open(image) as gray, replacing(path) as file:
            gray.convert("RGB").save(file, "JPEG", quality=95, subsampling=0)
        return
    if path.exists():
        return
    try:
        os.link(image, path)
    except OSError:
        with image.open("rb") as source, replacing(path) as file:
            shutil.copyfileobj(source, file)
