"""fashion5: people's clothes in five groups, as scripts/prepare_fashionpedia.py writes them.

`images/NAME.jpg` and `labels/NAME.png`, of Fashionpedia (Jia et al., ECCV 2020, arXiv
2004.12276) or the iMaterialist challenges. The split is sampled by a seed, 80 : 10 : 10, over the
sorted names. Its source (mberkay0/clothing-segmentation@1fb0c6e) split a subset with the package
splitfolders and the same seed; which images went where is not known, and not repeated.
"""

from pathlib import Path

from uda.data.datasets.fashion_classes import GROUPS
from uda.data.samples import Layout
from uda.labels.spaces import LabelSpace
from uda.utilities.errors import require

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

MANIFEST = "groups.json"  # there when a folder is complete: what it was made of


def _check(root: Path, labeled: bool) -> None:
    del labeled
    require(
        (root / MANIFEST).is_file(),
        f"{root} has no {MANIFEST}: its preparation is not complete; repeat the command of "
        "scripts/prepare_fashionpedia.py",
    )


FASHION = Layout(
    name="fashion5",
    short_name="FASHION5",
    folder="Fashion5",
    splits=("train", "val", "test"),
    label_space=FASHION5,
    images="images/*.jpg",
    labels="labels/*.png",
    shares={"train": 0.8, "val": 0.1, "test": 0.1},
    seed=1337,
    note="scripts/prepare_fashionpedia.py writes them",
    check=_check,
)
