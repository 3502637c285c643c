"""fashion5: people's clothes in five groups, as scripts/prepare_fashionpedia.py writes them.

`images/NAME.jpg` beside `labels/NAME.png`, of Fashionpedia (Jia et al., ECCV 2020, arXiv
2004.12276) or the iMaterialist challenges. The split is drawn by a seed, 80 : 10 : 10, over the
sorted names. Its source (mberkay0/clothing-segmentation@1fb0c6e) split a subset with the package
splitfolders and the same seed; which images went where is not known, and not repeated.
"""

from pathlib import Path

from uda.data.datasets.fashion_classes import GROUPS
from uda.data.preparation.fashion_labels import MANIFEST
from uda.data.samples import Layout, Sample, list_files, seeded_split
from uda.labels.spaces import LabelSpace
from uda.utilities.errors import InputError, require

FASHION5 = LabelSpace(
    name="fashion5",
    classes=GROUPS,  # background is a class: five groups and what is none of them make six
    report_names=GROUPS,
    palette=(
        (0, 0, 0),
        (220, 60, 60),
        (60, 110, 220),
        (160, 70, 190),
        (240, 180, 40),
        (60, 180, 90),
    ),
    raw_to_train={index: index for index in range(len(GROUPS))},
)

_SPLITS = ("train", "val", "test")
_SHARES = (0.8, 0.1, 0.1)
_SEED = 1337
_EXPECTED = (
    f"images/NAME.jpg, ..., labels/NAME.png, ... and {MANIFEST} (python "
    "scripts/prepare_fashionpedia.py writes them)"
)


def _list_samples(root: Path, split: str, labeled: bool) -> list[Sample]:
    require(
        (root / MANIFEST).is_file(),
        f"{root} holds no {MANIFEST}: its preparation has not ended; give the command of "
        "scripts/prepare_fashionpedia.py again",
    )
    names = [n.removesuffix(".jpg") for n in list_files(root / "images", ".jpg", _EXPECTED)]
    parts = dict(zip(_SPLITS, seeded_split(len(names), _SHARES, seed=_SEED), strict=True))
    chosen = [names[index] for index in parts[split]]
    if labeled:
        there = set(list_files(root / "labels", ".png", _EXPECTED))
        missing = [name for name in chosen if f"{name}.png" not in there]
        if missing:
            raise InputError(
                f"{root}: {len(missing)} of {len(chosen)} images of split {split} have no label, "
                f"the first is {missing[0]}.jpg: delete the folder and prepare it again"
            )
    return [
        Sample(
            "fashion5",
            name,
            root / "images" / f"{name}.jpg",
            root / "labels" / f"{name}.png" if labeled else None,
        )
        for name in chosen
    ]


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    del split  # all lie together
    return root / "images", root / "labels"


FASHION = Layout(
    name="fashion5",
    short_name="FASHION5",
    folder="Fashion5",
    splits=_SPLITS,
    label_space=FASHION5,
    list_samples=_list_samples,
    expected=_EXPECTED,
    folders=_folders,
    image_suffix=".jpg",
    label_suffix=".png",
)
