"""SYNTHIA-RAND-CITYSCAPES: `RGB/0000000.png` and `GT/LABELS/0000000.png`, 9400 of 1280x760.

Label files have three channels of 16 bits: red is the class, green the instance. Terrain, truck and
train have ids of their own and not one pixel, so they have none here; a file with such an id is of
another of the SYNTHIA sets.

Source: Ros et al., CVPR 2016. Lane markings (22) are ignored, as by DACS, DAFormer and most others;
`synthia_lanes` takes them for road, as CBST and CRST do.
"""

from uda.data.samples import Download, Form, KnownSplit, Layout
from uda.labels.spaces import LabelSpace
from uda.labels.streets import street_space

_CLASSES = {
    3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 1: 10, 10: 11, 17: 12, 8: 13, 19: 15,
    12: 17, 11: 18,
}  # fmt: skip
_VOID, _PARKING, _ROAD_WORK, _LANE_MARKING, _ROAD = 0, 13, 14, 22, 0
# By train id; those of terrain, truck and train are exactly 0.
_CLASS_SHARES = (
    0.186, 0.203, 0.303, 0.0027, 0.0028, 0.0108, 0.0004, 0.0011, 0.107, 0.0, 0.072, 0.044, 0.0049,
    0.043, 0.0, 0.0146, 0.0, 0.0021, 0.0022,
)  # fmt: skip

SYNTHIA_CLASSES = street_space(
    "synthia19",
    _CLASSES,
    ignored=(_VOID, _PARKING, _ROAD_WORK, _LANE_MARKING),
    channel="red",
    deep=True,
)
SYNTHIA_LANES_CLASSES = street_space(
    "synthia19_lane_markings_are_road",
    _CLASSES | {_LANE_MARKING: _ROAD},
    ignored=(_VOID, _PARKING, _ROAD_WORK),
    channel="red",
    deep=True,
)


def _layout(name: str, label_space: LabelSpace, *, part_of: str = "") -> Layout:
    return Layout(
        name=name,
        short_name="SYNTHIA",
        folder="RAND_CITYSCAPES",
        splits=("train",),
        label_space=label_space,
        part_of=part_of,
        images="RGB/*.png",
        labels="GT/LABELS/*.png",
        other_forms=(Form("RGB/*.png", "GT/labels/*.png"),),
        note="as SYNTHIA-RAND-CITYSCAPES unpacks, with labels of 16 bits",
        known={"train": KnownSplit((9400,))},
        class_shares=_CLASS_SHARES,
        domain="source",
        download=Download(
            "https://synthia-dataset.net",
            ("SYNTHIA-RAND-CITYSCAPES (2016; not RAND-CVPR16, nor the video sequences)",),
            "the archive has the folder RAND_CITYSCAPES; of it, RGB and GT/LABELS are read",
        ),
    )


SYNTHIA = _layout("synthia", SYNTHIA_CLASSES)
SYNTHIA_LANES = _layout("synthia_lanes", SYNTHIA_LANES_CLASSES, part_of=SYNTHIA.name)
