"""LoveDA: towns and countryside of China from above, 1024x1024, to adapt from one to the other.

Source: Wang et al., NeurIPS Datasets and Benchmarks 2021, arXiv 2110.08733.
"""

from uda.data.samples import KnownSplit, Layout
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

_CLASSES = {  # in the order of their ids, from 1 on, with colors for pictures
    "background": (255, 255, 255),
    "building": (255, 0, 0),
    "road": (255, 255, 0),
    "water": (0, 0, 255),
    "barren": (159, 129, 183),
    "forest": (0, 255, 0),
    "agriculture": (255, 195, 128),
}

LOVEDA7 = LabelSpace(
    name="loveda7",
    classes=tuple(_CLASSES),
    report_names=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    raw_to_train={0: IGNORE_INDEX} | {index + 1: index for index in range(len(_CLASSES))},
)

LOVEDA = Layout(
    name="loveda",  # for --set data.target.datasets=loveda
    short_name="LOVEDA",  # in the names of snapshots
    folder="LoveDA",  # below --data-root
    splits=("train_urban", "train_rural", "val_urban", "val_rural"),
    split_folders={  # what {split} stands for
        "train_urban": "Train/Urban",
        "train_rural": "Train/Rural",
        "val_urban": "Val/Urban",
        "val_rural": "Val/Rural",
    },
    images="{split}/images_png/*.png",
    labels="{split}/masks_png/*.png",
    label_space=LOVEDA7,
    note="as the downloads unpack",
    known={
        "train_urban": KnownSplit((1156,)),
        "train_rural": KnownSplit((1366,), labels="optional"),
    },
)
