"""A small PeopleClothing folder in exactly the layout of the Kaggle archive, drawn."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.datasets.clothes import CLOTHES59_CLASSES

SIZE = (72, 48)  # pixels (height, width), upright as the archive's 825x550
# From head to foot; each is there in some pictures only, but for skin and hair.
OUTFITS = (
    ("hair", "skin", "t-shirt", "jeans", "shoes"),
    ("hair", "skin", "dress", "dress", "heels"),
    ("hat", "skin", "coat", "pants", "boots"),
    ("hair", "skin", "shirt", "skirt", "sandals"),
)
Labels = npt.NDArray[np.uint8]


def outfit(index: int) -> Labels:
    """(H, W) ids: a standing figure of bands on background, a little elsewhere in each picture."""
    rng = np.random.default_rng(index)
    labels = np.zeros(SIZE, np.uint8)
    garments = [CLOTHES59_CLASSES.classes.index(name) for name in OUTFITS[index % len(OUTFITS)]]
    left, top = int(rng.integers(6, 14)), int(rng.integers(2, 8))
    for place, garment in enumerate(garments):
        labels[top + 12 * place : top + 12 * (place + 1), left : left + 28] = garment
    return labels


def photograph(labels: Labels, seed: int) -> npt.NDArray[np.uint8]:
    """(H, W, 3): every class in a color of its own, with noise."""
    colors = np.array([[(37 * c) % 200 + 20, (91 * c) % 200 + 20, (53 * c + 80) % 200 + 20]
                       for c in range(CLOTHES59_CLASSES.num_classes)])  # fmt: skip
    noise = np.random.default_rng(seed).integers(-15, 16, (*labels.shape, 3))
    return (colors[labels] + noise).clip(0, 255).astype(np.uint8)


def write_people_clothing(root: Path, count: int = 20, *, ids: Labels | None = None) -> Path:
    """The folder PeopleClothing below `root`, with `count` images; `ids`: (59,) what is written
    instead of each id."""
    folder = root / "PeopleClothing"
    for part in ("png_images/IMAGES", "png_masks/MASKS", "jpeg_images/IMAGES", "jpeg_masks/MASKS"):
        (folder / part).mkdir(parents=True)
    for index in range(1, count + 1):
        labels = outfit(index)
        image = Image.fromarray(photograph(labels, index))
        masks = Image.fromarray(labels if ids is None else ids[labels])
        image.save(folder / f"png_images/IMAGES/img_{index:04d}.png")
        masks.save(folder / f"png_masks/MASKS/seg_{index:04d}.png")
        image.save(folder / f"jpeg_images/IMAGES/img_{index:04d}.jpeg")
        masks.save(folder / f"jpeg_masks/MASKS/seg_{index:04d}.jpeg")
    write_names(folder, ("null", *CLOTHES59_CLASSES.classes[1:]))
    return folder


def write_names(folder: Path, names: tuple[str, ...]) -> Path:
    path = folder / "labels.csv"
    rows = "".join(f"{index},{name}\n" for index, name in enumerate(names))
    path.write_text(f",label_list\n{rows}")
    return path
