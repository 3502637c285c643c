"""ISPRS Vaihingen and Potsdam: aerial images in tiles, as scripts/prepare_vaihingen.py cuts them.

`img_dir/<split>/area1_0_0_512_512.png` and `ann_dir/<split>/` with raw ids: 0 where nothing is
known, 1 to 6 the classes. The tiles of mmsegmentation's converters have the same layout.

Source: Rottensteiner et al., ISPRS Annals I-3, 2012.
"""

from uda.data.samples import Layout
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

_CLASSES = ("impervious_surface", "building", "low_vegetation", "tree", "car", "clutter")

ISPRS6 = LabelSpace(
    name="isprs6",
    classes=_CLASSES,
    report_names=_CLASSES,
    palette=((255, 255, 255), (0, 0, 255), (0, 255, 255), (0, 255, 0), (255, 255, 0), (255, 0, 0)),
    raw_to_train={0: IGNORE_INDEX} | {train_id + 1: train_id for train_id in range(len(_CLASSES))},
)


def _layout(name: str, folder: str) -> Layout:
    return Layout(
        name=name,
        short_name=folder.upper(),
        folder=folder,
        splits=("train", "val"),
        label_space=ISPRS6,
        images="img_dir/{split}/*.png",
        labels="ann_dir/{split}/*.png",
        note="scripts/prepare_vaihingen.py cuts these tiles from the downloads",
        # How many tiles there are depends on their size and overlap.
    )


VAIHINGEN = _layout("vaihingen", "Vaihingen")
POTSDAM = _layout("potsdam", "Potsdam")
