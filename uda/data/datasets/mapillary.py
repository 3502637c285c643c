"""Mapillary Vistas 1.2: `training/images/*.jpg` and `training/labels/*.png`, images of 2 to 22 MP.

Label files are palette PNGs whose index is one of 66 ids, mapped to the 19 classes as RobustNet,
HRDA, Rein and VFM-UDA do; other papers count crosswalks and parking as road. Release 2.0 has the
labels of 1.2 in `training/v1.2/labels`; its own have 124 other ids and are not read.

Source: Neuhold et al., ICCV 2017.
"""

from uda.data.samples import Download, Form, KnownSplit, Layout
from uda.labels.streets import street_space

_CLASSES = {
    13: 0, 24: 0, 41: 0,  # road, lane marking, manhole
    2: 1, 15: 1,  # curb, sidewalk
    17: 2, 6: 3, 3: 4,
    45: 5, 47: 5,  # pole, utility pole
    48: 6,
    50: 7,  # the front of a traffic sign
    30: 8, 29: 9, 27: 10, 19: 11,
    20: 12, 21: 12, 22: 12,  # bicyclist, motorcyclist, other rider
    55: 13, 61: 14, 54: 15, 58: 16, 57: 17, 52: 18,
}  # fmt: skip
# By train id.
_CLASS_SHARES = (
    0.222, 0.042, 0.137, 0.0086, 0.0142, 0.0136, 0.0021, 0.0049, 0.166, 0.0123, 0.325, 0.0036,
    0.0007, 0.038, 0.0042, 0.0030, 0.0003, 0.0007, 0.0007,
)  # fmt: skip

MAPILLARY = Layout(
    name="mapillary",
    short_name="MAPILLARY",
    folder="Mapillary",
    splits=("train", "val", "test"),
    split_folders={"train": "training", "val": "validation", "test": "testing"},
    label_space=street_space(
        "mapillary_1.2_to_19", _CLASSES, ignored=tuple(set(range(66)) - set(_CLASSES))
    ),
    images="{split}/images/*.jpg",
    labels="{split}/labels/*.png",
    other_forms=(Form("{split}/images/*.jpg", "{split}/v1.2/labels/*.png"),),
    note="as the download unpacks; of 2.0, the labels in v1.2",
    known={
        "train": KnownSplit((18000,), labels="optional"),
        "val": KnownSplit((2000,)),
        "test": KnownSplit((5000,), labels="none"),
    },
    class_shares=_CLASS_SHARES,
    download=Download(
        "https://www.mapillary.com/dataset/vistas",
        ("Mapillary Vistas 1.2, or 2.0, which has the labels of 1.2 as well",),
        "so that training and validation are in the folder Mapillary; registration is needed",
    ),
)
