"""Folders of label maps and of predictions, written and scored."""

from pathlib import Path

import numpy as np

from factories import CITYSCAPES_STEMS, SIZE, Bytes, cityscapes_labels, write_png
from uda.data.prediction_folder import Ids, pair_files
from uda.evaluation.folder_scoring import score_pairs, sets_of_maps
from uda.evaluation.measures import Measured
from uda.labels.spaces import CITYSCAPES

NO_CLASS = 19


STEM = CITYSCAPES_STEMS[0]


def random_ids(seed: int, values: int | list[int], size: tuple[int, int] = SIZE) -> Bytes:
    """(H, W) of `values`, or of all below it, in patches of 2x2."""
    rng = np.random.default_rng(seed)
    small = rng.choice(values, (size[0] // 2, size[1] // 2)).astype(np.uint8)
    return np.kron(small, np.ones((2, 2), np.uint8))


def write_labels(root: Path, raw: dict[str, Bytes]) -> Path:
    """Raw label files as Cityscapes has them; the folder of the split."""
    paths = [write_png(cityscapes_labels(root, stem, "val"), ids) for stem, ids in raw.items()]
    return paths[0].parent.parent


def write_predictions(root: Path, ids: dict[str, Bytes], suffix: str = "_leftImg8bit.png") -> Path:
    for stem, values in ids.items():
        write_png(root / "predictions" / f"{stem}{suffix}", values)
    return root / "predictions"


def raw_folders(root: Path, count: int = 4) -> tuple[Path, Path]:
    """Predictions in raw ids and labels, both random."""
    stems = CITYSCAPES_STEMS[:count]
    labels = write_labels(root, {stem: random_ids(i, 34) for i, stem in enumerate(stems)})
    found = write_predictions(root, {stem: random_ids(9 + i, 34) for i, stem in enumerate(stems)})
    return found, labels


def scored(
    predictions: Path,
    labels: Path,
    *,
    ids: Ids,
    sets: tuple[str, ...] = (),
    boundary_ratio: float | None = None,
) -> Measured:
    pairs, _ = pair_files(predictions, labels)
    groups = sets_of_maps(sets, space=CITYSCAPES)
    return score_pairs(pairs, ids=ids, space=CITYSCAPES, sets=groups, boundary_ratio=boundary_ratio)
