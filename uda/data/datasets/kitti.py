"""KITTI semantics: `training/image_2/*.png` and `training/semantic/*.png`, 200 of about 1242x375.

Label files are gray PNGs of Cityscapes' ids. The labels of the 200 test images are on a server; to
score on KITTI, name the split `train`, which nothing has to be trained on.

Source: Abu Alhaija et al., IJCV 2018, arXiv 1708.01566.
"""

from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES

KITTI = Layout(
    name="kitti",
    short_name="KITTI",
    folder="KITTI",
    splits=("train", "test"),
    split_folders={"train": "training", "test": "testing"},
    label_space=CITYSCAPES,
    images="{split}/image_2/*.png",
    labels="{split}/semantic/*.png",
    named_by_path=True,  # both splits have 000000_10
    note="as data_semantics.zip unpacks",
    known={
        "train": KnownSplit((200,), labels="optional"),
        "test": KnownSplit((200,), labels="none"),
    },
    download=Download(
        "https://www.cvlibs.net/datasets/kitti/eval_semantics.php",
        ("data_semantics.zip",),
        "in the folder KITTI: it has the folders training and testing",
    ),
)
