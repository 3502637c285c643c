"""Small COCO images and DensePose annotations in the layout of the originals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.preparation.densepose import PARTS

Mask = npt.NDArray[np.bool_]


def compressed(mask: Mask) -> str:
    """COCO's text of a mask: runs down the columns, the first of background; from the fourth on
    the difference to the last but one; five bits in a character, the lowest first."""
    flat = mask.T.ravel()
    ends = [*(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    runs = np.diff([0, *([0] if flat[0] else []), *ends]).tolist()
    text = ""
    for index, run in enumerate(runs):
        value = run - runs[index - 2] if index > 2 else run
        while True:
            bits = value & 31
            value >>= 5
            done = value == (-1 if bits & 16 else 0)
            text += chr(48 + (bits if done else bits | 32))
            if done:
                break
    return text


def part_masks(frame: npt.NDArray[np.uint8]) -> list[Any]:
    """`dp_masks` of part numbers 1..14 (256, 256) in the documented order; [] of absent parts."""
    return [
        {"counts": compressed(frame == part), "size": [256, 256]} if (frame == part).any() else []
        for part in range(1, len(PARTS) + 1)
    ]


def standing() -> npt.NDArray[np.uint8]:
    """A person seen from behind, whose right side is on the right: part numbers in a frame."""
    frame = np.zeros((256, 256), np.uint8)
    for part, rows, columns in (
        (1, (60, 140), (80, 176)), (14, (5, 60), (100, 156)),
        (11, (60, 100), (176, 200)), (10, (60, 100), (56, 80)),
        (13, (100, 140), (176, 200)), (12, (100, 140), (56, 80)),
        (2, (140, 160), (176, 200)), (3, (140, 160), (56, 80)),
        (6, (140, 190), (130, 170)), (7, (140, 190), (86, 126)),
        (8, (190, 235), (130, 170)), (9, (190, 235), (86, 126)),
        (5, (235, 254), (130, 176)), (4, (235, 254), (80, 126)),
    ):  # fmt: skip
        frame[slice(*rows), slice(*columns)] = part
    return frame


# Skin, cloth and shoes: what a network can tell the parts by.
COLORS = np.random.default_rng(0).integers(40, 250, (15, 3)).astype(np.uint8)


def write_densepose(
    folder: Path, *, count: int = 6, size: tuple[int, int] = (96, 80), subset: str = "train2014"
) -> tuple[Path, Path]:
    """`count` images of one person each on noise, with annotations; the JSON file and the folder of
    images."""
    rng = np.random.default_rng(count)
    images, annotations = [], []
    (folder / subset).mkdir(parents=True, exist_ok=True)
    frame = standing()
    for index in range(1, count + 1):
        name = f"COCO_{subset}_{index:012d}.jpg"
        height, width = size
        box = [float(rng.uniform(2, 20)), float(rng.uniform(2, 10)), width - 24.5, height - 14.5]
        picture = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
        rows = np.arange(round(box[1]), round(box[1] + box[3]))
        columns = np.arange(round(box[0]), round(box[0] + box[2]))
        seen = frame[np.ix_((rows - rows[0]) * 256 // len(rows),
                            (columns - columns[0]) * 256 // len(columns))]  # fmt: skip
        region = picture[np.ix_(rows, columns)]
        picture[np.ix_(rows, columns)] = np.where(seen[..., None] > 0, COLORS[seen], region)
        Image.fromarray(picture).save(folder / subset / name, quality=92)
        images.append({"id": index, "file_name": name, "height": height, "width": width})
        annotations.append({
            "id": 100 + index, "image_id": index, "category_id": 1, "iscrowd": 0, "bbox": box,
            "area": 1.0, "segmentation": [], "dp_masks": part_masks(frame),
            "dp_I": [1.0], "dp_U": [0.5], "dp_V": [0.5], "dp_x": [9.0], "dp_y": [9.0],
        })  # fmt: skip
    path = folder / f"densepose_{subset}.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations,
                                "categories": [{"id": 1, "name": "person"}]}))  # fmt: skip
    return path, folder / subset
