"""Body parts of photographed people: `images/<split>/*.jpg` and `labels/<split>/*.png`.

The classes are those of Alchera's NoonBody challenge (2021): 14 parts of DensePose-COCO and the
background; heads are learned and not scored. Its training images are public, and
`scripts/prepare_densepose.py` writes them as `train` (DensePose's minival serves as `val`). Its own
photographs are not: to use them, put them into this layout, with PNGs of ids 0..14.
Source: Gueler et al., "DensePose", CVPR 2018, arXiv 1802.00434.
"""

from uda.data.samples import KnownSplit, Layout
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

BODY_PARTS = LabelSpace(
    name="body_parts15",
    classes=(
        "background", "torso", "right hand", "left hand", "left foot", "right foot",
        "right thigh", "left thigh", "right calf", "left calf", "left upper arm",
        "right upper arm", "left forearm", "right forearm", "head",
    ),
    report_names=(
        "background", "torso", "right hand", "left hand", "left foot", "right foot",
        "right thigh", "left thigh", "right calf", "left calf", "left upper arm",
        "right upper arm", "left forearm", "right forearm", "head",
    ),
    palette=(
        (0, 0, 0), (128, 128, 128), (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48),
        (128, 0, 0), (0, 128, 128), (170, 110, 40), (70, 240, 240), (0, 0, 128), (240, 50, 230),
        (145, 30, 180), (250, 190, 212), (255, 225, 25),
    ),
    raw_to_train={part: part for part in range(15)} | {IGNORE_INDEX: IGNORE_INDEX},
    mirror_swaps=((2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)),
    unscored=(14,),
)  # fmt: skip


NOONBODY = Layout(
    name="noonbody",
    short_name="NOONBODY",
    folder="NoonBody",
    splits=("train", "val", "test"),
    label_space=BODY_PARTS,
    images="images/{split}/*.jpg",
    labels="labels/{split}/*.png",
    note="scripts/prepare_densepose.py writes them, with ids 0..14",
    known={
        # DensePose's train2014 and minival2014 or the challenge's photographs.
        "train": KnownSplit((26437,), labels="optional"),
        "val": KnownSplit((1508, 800)),
    },
)
