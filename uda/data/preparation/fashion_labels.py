"""Label maps of five groups of clothing from the instances of Fashionpedia or iMaterialist."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.datasets.fashion import MANIFEST
from uda.data.datasets.fashion_classes import FASHION_CLASSES, GROUPS
from uda.data.files import read_header
from uda.data.preparation.coco_masks import Size
from uda.data.preparation.fashion_annotations import (
    AnnotatedImage,
    Annotations,
    Instance,
    read_annotations,
)
from uda.utilities.atomic_files import clear_write_errors, remove_partial, replacing
from uda.utilities.errors import InputError, require
from uda.utilities.locks import holds_nothing, sole_writer
from uda.utilities.reading import LARGE, read_bytes, real
from uda.utilities.weight_files import sha256

_BEGUN = "begun.json"  # there until then
_QUALITY = 95  # of the JPEG that replaces an image without colors


class Prepared(NamedTuple):
    """What a preparation has done."""

    images: int
    missing: int  # images of the annotations that were not there
    converted: int  # images without colors that were rewritten


class _Job(NamedTuple):
    annotations: Annotations
    image: AnnotatedImage
    file: Path


def label_map(instances: Iterable[Instance], size: Size) -> npt.NDArray[np.uint8]:
    """(H, W) uint8 of GROUPS: the largest group number of all instances at each pixel.

    Parts that belong to no group do not change the garment below them.
    """
    labels = np.zeros(size, np.uint8)
    for instance in instances:
        group = np.uint8(FASHION_CLASSES[instance.class_id].group)
        np.maximum(labels, group, out=labels, where=instance.mask)
    return labels


def prepare(
    annotation_files: Sequence[Path],
    image_folders: Sequence[Path],
    output: Path,
    *,
    allow_missing: bool = False,
    threads: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Prepared:
    """Writes `images/` and `labels/` below `output` and, at the end, groups.json.

    Images become hard links, or copies on another file system; those without colors become JPEGs
    with three channels. What an interrupted preparation of the same files has written is kept.
    `allow_missing`: images that are in no folder are skipped. `progress`: called with the number
    of images done and of all.

    Raises InputError when a file cannot be used, or `output` has other content.
    """
    sources = [read_annotations(path) for path in annotation_files]
    jobs, missing = _jobs(sources, image_folders)
    require(
        allow_missing or not missing,
        f"{len(missing)} images of the annotations are in none of the image folders, the first is "
        f"{next(iter(missing), '')}: complete the download, or skip them with --allow-missing",
    )
    require(bool(jobs), "none of the annotations' images is in the image folders: nothing to do")
    record = _record(annotation_files, len(jobs), len(missing))
    converted = 0
    with (
        sole_writer(output, another="--output DIR", leave=False),
        ThreadPoolExecutor(threads) as pool,
    ):
        done = _begin(output, record)
        write = partial(_write, output, done)
        try:
            for number, was_converted in enumerate(pool.map(write, jobs), start=1):
                converted += was_converted
                progress(number, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
        with replacing(output / MANIFEST) as file:
            file.write(_text(record))
        with clear_write_errors(output / _BEGUN):
            (output / _BEGUN).unlink(missing_ok=True)
    return Prepared(len(jobs), len(missing), converted)


def _jobs(sources: Sequence[Annotations], folders: Sequence[Path]) -> tuple[list[_Job], list[str]]:
    """The images that are there, and the names of those that are not."""
    files: dict[str, Path] = {}
    for folder in reversed(folders):  # if two contain a name, the first one counts
        require(folder.is_dir(), f"{folder} is not a folder of images")
        files |= {entry.name: Path(entry.path) for entry in os.scandir(folder)}
    jobs, missing, seen = [], [], set[str]()
    for source in sources:
        for image in source.images:
            name = image.file_name.removesuffix(".jpg")  # Kaggle's table of 2020 has no suffix
            require(name not in seen, f"{source.path}: {name} is annotated a second time")
            seen.add(name)
            found = files.get(f"{name}.jpg")
            if found is None:
                missing.append(f"{name}.jpg")
            else:
                jobs.append(_Job(source, image, found))
    return jobs, missing


def _record(annotation_files: Sequence[Path], images: int, missing: int) -> dict[str, object]:
    """What a folder is made of: another one has another record."""
    return {
        "annotations": [{"file": path.name, "sha256": sha256(path)} for path in annotation_files],
        "images": images,
        "missing_images": missing,
        "groups": list(GROUPS),
        "pixel": "the largest group number of all instances that contain it",
        "classes": [row._asdict() | {"group": GROUPS[row.group]} for row in FASHION_CLASSES],
    }


def _is_same(path: Path, content: bytes) -> bool:
    try:
        return read_bytes(path, LARGE) == content
    except OSError:
        return False


def _begin(output: Path, record: dict[str, object]) -> set[str]:
    """Makes the folders; the names of the images that are done already."""
    for name in (MANIFEST, _BEGUN):
        path = output / name
        if path.exists():
            require(
                _is_same(path, _text(record)),
                f"{output} was made of other annotations or images (see {path}): delete it or "
                "choose another folder",
            )
            break
    else:
        require(
            holds_nothing(output),
            f"{output} exists, and nothing says of what it was made: choose another folder",
        )
    with clear_write_errors(output):
        remove_partial(output)
        for folder in ("images", "labels"):
            (output / folder).mkdir(parents=True, exist_ok=True)
            remove_partial(output / folder)
    with replacing(output / _BEGUN) as file:
        file.write(_text(record))
    # An image is written after its labels, so it is the sign that both are there.
    return {entry.name for entry in os.scandir(output / "images")}


def _text(record: dict[str, object]) -> bytes:
    return (json.dumps(record, indent=1) + "\n").encode()


def _write(output: Path, done: set[str], job: _Job) -> bool:
    """Labels and image of one sample; whether the image had to be converted."""
    if job.file.name in done:
        return False
    header = read_header(job.file)
    require(
        header.size == job.image.size,
        f"{job.file} is {header.size[1]}x{header.size[0]}, its annotations are of "
        f"{job.image.size[1]}x{job.image.size[0]}: replace the image, or remove it and give "
        "--allow-missing",
    )
    labels = label_map(job.annotations.instances(job.image), job.image.size)
    with replacing(output / "labels" / f"{job.file.stem}.png") as file:
        Image.fromarray(labels).save(file, "PNG")
    target = output / "images" / job.file.name
    if header.mode != "RGB":
        _convert(job.file, target)
        return True
    with clear_write_errors(target):
        _link(real(job.file), target)
    return False


def _link(source: Path, target: Path) -> None:
    try:
        target.hardlink_to(source)
    except OSError:  # another file system, or one without links
        with source.open("rb") as original, replacing(target) as file:
            shutil.copyfileobj(original, file)


def _convert(source: Path, target: Path) -> None:
    try:
        with Image.open(source) as image:
            colors = image.convert("RGB")
    except OSError as error:
        raise InputError(f"{source} cannot be decoded ({error}): replace the file") from None
    with replacing(target) as file:
        colors.save(file, "JPEG", quality=_QUALITY, subsampling=0)
