"""ISPRS Vaihingen and Potsdam: aerial images in tiles, as scripts/prepare_vaihingen.py cuts them.

`img_dir/<split>/area1_0_0_512_512.png` beside `ann_dir/<split>/` with raw ids: 0 where nothing is
known, 1 to 6 the classes. The tiles of mmsegmentation's converters lie in the same way.

Source: Rottensteiner et al., ISPRS Annals I-3, 2012.
"""

from functools import partial
from pathlib import Path

from uda.data.samples import Layout, Sample, list_files
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import InputError

_CLASSES = ("impervious_surface", "building", "low_vegetation", "tree", "car", "clutter")

ISPRS6 = LabelSpace(
    name="isprs6",
    classes=_CLASSES,
    report_names=_CLASSES,
    palette=((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
    raw_to_train={0: IGNORE_INDEX} | {train_id + 1: train_id for train_id in range(len(_CLASSES))},
)

_EXPECTED = (
    "img_dir/<split>/<tile>.png and ann_dir/<split>/<tile>.png (python "
    "scripts/prepare_vaihingen.py makes them from the downloads)"
)


def _list_samples(dataset: str, root: Path, split: str, labeled: bool) -> list[Sample]:
    images, labels = _folders(root, split)
    names = list_files(images, ".png", _EXPECTED)
    label_names = set(list_files(labels, ".png", _EXPECTED)) if labeled else set()
    missing = [name for name in names if labeled and name not in label_names]
    if missing:
        raise InputError(
            f"{images}: {len(missing)} of {len(names)} tiles have no label, the first is "
            f"{missing[0]}; expected {labels / missing[0]}: give the command that made the tiles "
            "again, which completes them"
        )
    return [
        Sample(
            dataset, name.removesuffix(".png"), images / name, labels / name if labeled else None
        )
        for name in names
    ]


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    return root / "img_dir" / split, root / "ann_dir" / split


def _layout(name: str, folder: str) -> Layout:
    return Layout(
        name=name,
        short_name=folder.upper(),
        folder=folder,
        splits=("train", "val"),
        label_space=ISPRS6,
        list_samples=partial(_list_samples, name),
        expected=_EXPECTED,
        folders=_folders,
        image_suffix=".png",
        label_suffix=".png",
        # How many tiles there are depends on their size and overlap.
    )


VAIHINGEN = _layout("vaihingen", "Vaihingen")
POTSDAM = _layout("potsdam", "Potsdam")
