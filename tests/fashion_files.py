"""Small files in the layouts of Fashionpedia and of iMaterialist, of the same drawn instances."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.datasets.fashion_classes import FASHION_CLASSES


class Box(NamedTuple):
    """An instance: a class and a rectangle."""

    class_id: int
    left: int
    top: int
    right: int  # the first column and row behind it
    bottom: int


def drawn_boxes(index: int, size: tuple[int, int]) -> list[Box]:
    """A person's clothes: every group, a part on a garment, one that only looks like a garment."""
    rng = np.random.default_rng(index)
    height, width = size
    left, right = width // 4 + int(rng.integers(3)), 3 * width // 4 - int(rng.integers(3))
    middle = height // 2 + int(rng.integers(-2, 3))
    top = 10 if index % 3 == 0 else int(rng.integers(6))  # every third person wears a dress
    bottom = 21 if index % 3 == 1 else int(rng.integers(6, 9))
    return [
        Box(31, left, height // 5, left + 4, middle),  # a sleeve, listed before the garment
        Box(top, left, height // 5, right, middle),
        Box(bottom, left, middle - 3, right, height - height // 6),
        Box(32, left + 2, middle + 1, left + 6, middle + 5),  # a pocket
        Box(23, left, height - height // 5, right, height - height // 10),
        Box(24, right - 3, middle - 4, min(width, right + 5), middle + 6),  # a bag over both
    ]


def picture(index: int, boxes: list[Box], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB: each class in its color, on noise."""
    rng = np.random.default_rng([index, 1])
    image = rng.integers(90, 120, (*size, 3)).astype(np.uint8)
    for box in sorted(boxes, key=lambda box: FASHION_CLASSES[box.class_id].group):
        color = (40 * FASHION_CLASSES[box.class_id].group, 5 * box.class_id, 200)
        image[box.top : box.bottom, box.left : box.right] = color
    return image


def runs_of(box: Box, size: tuple[int, int]) -> list[int]:
    """The run lengths of a box, down the columns."""
    mask = np.zeros(size, np.bool_)
    mask[box.top : box.bottom, box.left : box.right] = True
    flat = mask.T.ravel()
    changes = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    places = [0] * (1 + int(flat[0])) + changes.tolist() + [flat.size]
    return np.diff(places).tolist()


def polygon_of(box: Box) -> list[float]:
    left, top, right, bottom = map(float, box[1:])
    return [left, top, right, top, right, bottom, left, bottom]


def write_images(folder: Path, count: int, size: tuple[int, int]) -> dict[str, list[Box]]:
    """JPEGs `folder/name.jpg`; the boxes of each by its name without suffix."""
    folder.mkdir(parents=True)
    drawn = {f"{index:032x}": drawn_boxes(index, size) for index in range(count)}
    for index, (name, boxes) in enumerate(drawn.items()):
        Image.fromarray(picture(index, boxes, size)).save(folder / f"{name}.jpg", quality=95)
    return drawn


def coco(drawn: dict[str, list[Box]], size: tuple[int, int]) -> dict[str, Any]:
    """What instances_attributes_train2020.json holds: polygons and, for each third, run lengths."""
    instances: list[dict[str, Any]] = []
    for image_id, boxes in enumerate(drawn.values(), start=11):
        for box in boxes:
            segmentation: Any = [polygon_of(box)]
            if len(instances) % 3 == 2:
                segmentation = {"counts": runs_of(box, size), "size": list(size)}
            instances.append(
                {
                    "id": len(instances),
                    "image_id": image_id,
                    "category_id": box.class_id,
                    "segmentation": segmentation,
                    "iscrowd": 0,
                    "attribute_ids": [72],
                    "bbox": [box.left, box.top, box.right - box.left, box.bottom - box.top],
                }
            )
    return {
        "info": {"year": 2020, "description": "Fashionpédia"},
        "licenses": [],
        "categories": [
            {"id": row.id, "name": row.name, "supercategory": row.supercategory, "level": 2}
            for row in FASHION_CLASSES
        ],
        "images": [
            {"id": image_id, "file_name": f"{name}.jpg", "height": size[0], "width": size[1]}
            for image_id, name in enumerate(drawn, start=11)
        ],
        # Not in the order of the images.
        "annotations": instances[::2] + instances[1::2],
    }


def write_coco(path: Path, drawn: dict[str, list[Box]], size: tuple[int, int]) -> None:
    path.write_text(json.dumps(coco(drawn, size)), encoding="utf-8")


def write_kaggle(
    path: Path, drawn: dict[str, list[Box]], size: tuple[int, int], *, year: int = 2019
) -> None:
    """The train.csv of a year: in 2019 attributes stand behind the class, in 2020 for themselves;
    and names then have no suffix."""
    lines = ["ImageId,EncodedPixels,Height,Width,ClassId" + (",AttributesIds" * (year == 2020))]
    for name, boxes in drawn.items():
        for number, box in enumerate(boxes):
            runs = runs_of(box, size)
            starts = np.cumsum(runs)[::2].tolist()
            lengths = runs[1::2]
            pairs = zip(starts[: len(lengths)], lengths, strict=True)
            pixels = " ".join(f"{start + 1} {length}" for start, length in pairs)
            if year == 2020:
                row = [name, pixels, *map(str, size), str(box.class_id), '"115,136"']
            else:
                attributes = "_72_84" if number % 2 else ""
                row = [f"{name}.jpg", pixels, *map(str, size), f"{box.class_id}{attributes}"]
            lines.append(",".join(row))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
