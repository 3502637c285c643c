"""UrbanSyn: `rgb/rgb_0001.png` and `ss/ss_0001.png`, 7539 of 2048x1024, synthetic.

Label files have several channels of 8 bits: the first is the train id, 19 where there is none.

Source: Gomez et al., Neurocomputing 2025, arXiv 2312.12176.
"""

from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX
from uda.labels.streets import street_space

_UNLABELED = 19
# By train id.
_CLASS_SHARES = (
    0.316, 0.068, 0.334, 0.0014, 0.0035, 0.0147, 0.0018, 0.0069, 0.079, 0.0131, 0.077, 0.0130,
    0.0019, 0.041, 0.0059, 0.0061, 0.0015, 0.0012, 0.0013,
)  # fmt: skip

URBANSYN = Layout(
    name="urbansyn",
    short_name="URBANSYN",
    folder="UrbanSyn",
    splits=("train",),
    label_space=street_space(
        "urbansyn19",
        {i: i for i in range(CITYSCAPES.num_classes)},
        ignored=(_UNLABELED, IGNORE_INDEX),
        channel="red",
    ),
    images="rgb/rgb_*.png",
    labels="ss/ss_*.png",
    note="as the download unpacks",
    known={"train": KnownSplit((7539,))},
    class_shares=_CLASS_SHARES,
    domain="source",
    download=Download(
        "https://www.urbansyn.org",
        ("rgb (about 21 GB)", "ss (about 385 MB)"),
        "both folders in the folder UrbanSyn",
    ),
)
