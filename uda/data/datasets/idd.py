"""IDD, segmentation: roads in India, 10,003 images of 1920x1080 and 1280x720 in part I.

`leftImg8bit/<split>/<drive>/*_leftImg8bit.png` (part II: .jpg), and polygons in
`gtFine/<split>/<drive>/*_gtFine_polygons.json`. No label picture is published: the polygons are
drawn when a file is read, so no preparation is needed. Of the set's own classes, the non-drivable
fallback is terrain; the auto-rickshaw, the curb and others are ignored. Trains are so rare that its
own benchmark ignores them: where there is none, the mean over 19 classes is one over 18.

Source: Varma et al., WACV 2019, arXiv 1811.10200; mapping: `csTrainId` of AutoNUE's public code.
"""

from uda.data.patterns import Pattern
from uda.data.samples import Download, KnownSplit, Layout, Split
from uda.labels.streets import street_space

_NAMES = (  # by their ids
    "road", "parking", "drivable fallback", "sidewalk", "rail track", "non-drivable fallback",
    "person", "animal", "rider", "motorcycle", "bicycle", "autorickshaw", "car", "truck", "bus",
    "caravan", "trailer", "train", "vehicle fallback", "curb", "wall", "fence", "guard rail",
    "billboard", "traffic sign", "traffic light", "pole", "polegroup", "obs-str-bar-fallback",
    "building", "bridge", "tunnel", "vegetation", "sky", "fallback background", "unlabeled",
    "ego vehicle", "rectification border", "out of roi", "license plate",
)  # fmt: skip
_CLASSES = {
    0: 0, 3: 1, 29: 2, 20: 3, 21: 4, 26: 5, 25: 6, 24: 7, 32: 8, 5: 9, 33: 10, 6: 11, 8: 12, 12: 13,
    13: 14, 14: 15, 17: 16, 9: 17, 10: 18,
}  # fmt: skip
_COUNTS = {"train": 6993, "val": 981, "test": 2029}  # of part I


def _split(name: str) -> Split:
    images = tuple(
        Pattern(f"leftImg8bit/{{split}}/*/*_leftImg8bit{suffix}", "idd")
        for suffix in (".png", ".jpg")
    )
    labels = Pattern("gtFine/{split}/*/*_gtFine_polygons.json", "idd")
    return Split(name, images, labels, folder=name)


IDD = Layout(
    name="idd",
    short_name="IDD",
    folder="IDD_Segmentation",
    splits=tuple(_COUNTS),
    label_space=street_space(
        "idd19",
        _CLASSES,
        ignored=tuple(set(range(len(_NAMES))) - set(_CLASSES)),
        names={name: raw_id for raw_id, name in enumerate(_NAMES)},
    ),
    parts={name: _split(name) for name in _COUNTS},
    named_by_path=True,  # drives share names of frames
    note="as the download unpacks",
    known={
        "train": KnownSplit((_COUNTS["train"],), labels="optional"),
        "val": KnownSplit((_COUNTS["val"],)),
        "test": KnownSplit((_COUNTS["test"],), labels="none"),
    },
    download=Download(
        "https://idd.insaan.iiit.ac.in",
        ("IDD Segmentation, part I (6993, 981 and 2029 images)",),
        "in the data root: it has the folder IDD_Segmentation; registration is needed",
    ),
)
