"""WildDash 2: `images/*.jpg` and `labels/*.png`, 4256 difficult scenes of 1920x1080.

Label files are gray PNGs of Cityscapes' ids and more of them from 34 on, such as vans and pickups,
which differ between its releases: these are ignored. There is one split, `train`: the labels of the
benchmark's own images are on a server.

Source: Zendel et al., CVPR 2022.
"""

from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES
from uda.labels.streets import street_space

_FIRST_OWN_ID, _HIGHEST_ID = 34, 50  # no release has as many
# By train id.
_CLASS_SHARES = (
    0.216, 0.030, 0.122, 0.0131, 0.0106, 0.0104, 0.0007, 0.0039, 0.180, 0.0244, 0.299, 0.0084,
    0.0022, 0.044, 0.0199, 0.0098, 0.0019, 0.0034, 0.0009,
)  # fmt: skip

WILDDASH = Layout(
    name="wilddash",
    short_name="WILDDASH",
    folder="WildDash",
    splits=("train",),
    label_space=street_space(
        "wilddash19",
        CITYSCAPES.raw_to_train,
        ignored=tuple(range(_FIRST_OWN_ID, _HIGHEST_ID)),
    ),
    images="images/*.jpg",
    labels="labels/*.png",
    note="as the public release 2 unpacks",
    known={"train": KnownSplit((4256,))},
    class_shares=_CLASS_SHARES,
    download=Download(
        "https://wilddash.cc",
        ("the public release of WildDash 2 (wd_public_02)",),
        "so that images and labels are in the folder WildDash; registration is needed",
    ),
)
