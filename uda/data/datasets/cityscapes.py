"""Cityscapes: `leftImg8bit/<split>/<city>/` images, `gtFine/<split>/<city>/` label ids.

Source: Cordts et al., CVPR 2016, arXiv 1604.01685. The raw `*_labelIds.png` are read; the
`*_labelTrainIds.png` of other projects are not needed.
"""

from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES as CITYSCAPES_CLASSES

LABEL_SUFFIX = "_gtFine_labelIds.png"
# By train id, from road to bicycle; rough.
_CLASS_SHARES = (
    0.37, 0.06, 0.23, 0.0066, 0.0088, 0.0123, 0.0021, 0.0055, 0.159, 0.0116, 0.04, 0.0122, 0.0014,
    0.07, 0.0027, 0.0024, 0.0023, 0.001, 0.0041,
)  # fmt: skip
CITYSCAPES = Layout(
    name="cityscapes",
    short_name="CITYS",
    folder="Cityscapes",
    splits=("train", "train_extra", "val", "test"),
    label_space=CITYSCAPES_CLASSES,
    images="leftImg8bit/{split}/*/*_leftImg8bit.png",
    labels=f"gtFine/{{split}}/*/*{LABEL_SUFFIX}",
    note="as the downloads unpack",
    known={
        "train": KnownSplit((2975,), labels="optional"),
        "train_extra": KnownSplit((19998,), labels="none"),  # its labels are coarse ones
        "val": KnownSplit((500,)),
        "test": KnownSplit((1525,), labels="none"),  # its label files are dummies
    },
    class_shares=_CLASS_SHARES,
    download=Download(
        "https://www.cityscapes-dataset.com/downloads",
        ("leftImg8bit_trainvaltest.zip (11 GB)", "gtFine_trainvaltest.zip (241 MB)"),
        "both in the folder Cityscapes; registration is needed",
    ),
)
