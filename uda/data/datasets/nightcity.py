"""NightCity: nights in many cities, 1024x512.

`images/<split>/*.png` and `label/<split>/*_labelIds.png`, gray PNGs of Cityscapes' ids. There are
an upload with 2998 and 1299 images and one in which a slip moved an image to val (2997 and 1300).
NightCity+ and NightCity-fine are other labels of the same images: name which were used.

Source: Tan et al., IEEE TIP 2021, arXiv 2003.06883.
"""

from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES

NIGHTCITY = Layout(
    name="nightcity",
    short_name="NIGHTCITY",
    folder="NightCity",
    splits=("train", "val"),
    label_space=CITYSCAPES,
    images="images/{split}/*.png",
    labels="label/{split}/*_labelIds.png",
    note="rename the folder of images if your upload calls it otherwise",
    known={
        "train": KnownSplit((2998, 2997), labels="optional"),
        "val": KnownSplit((1299, 1300)),
    },
    download=Download(
        "https://dmcv.sjtu.edu.cn/people/phd/tanxin/NightCity/index.html",
        ("the images", "the labels (folders label and color)"),
        "so that images/train, images/val, label/train and label/val are in the folder NightCity",
    ),
)
