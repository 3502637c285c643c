"""BDD100K, semantic segmentation: 10,000 images of 1280x720, of which 8000 have labels.

`images/10k/<split>/*.jpg` and `labels/sem_seg/masks/<split>/*.png`, gray PNGs of train ids; the
archive of 2018 has `seg/images/<split>/*.jpg` and `seg/labels/<split>/*_train_id.png` instead. The
colors in `labels/sem_seg/colormaps` are for viewing. Images of the 10k set and of the 100k set for
detection overlap in part.

Source: Yu et al., CVPR 2020, arXiv 1805.04687.
"""

from uda.data.samples import Download, Form, KnownSplit, Layout
from uda.labels.streets import TRAIN_IDS

# By train id, of the training split; train (16) is nearly absent.
_CLASS_SHARES = (
    0.262, 0.025, 0.163, 0.0059, 0.0128, 0.0116, 0.0022, 0.0042, 0.163, 0.0127, 0.213, 0.0031,
    0.0003, 0.100, 0.0120, 0.0069, 0.0002, 0.0003, 0.0006,
)  # fmt: skip

BDD100K = Layout(
    name="bdd100k",
    short_name="BDD100K",
    folder="bdd100k",
    splits=("train", "val", "test"),
    label_space=TRAIN_IDS,
    images="images/10k/{split}/*.jpg",
    labels="labels/sem_seg/masks/{split}/*.png",
    other_forms=(Form("seg/images/{split}/*.jpg", "seg/labels/{split}/*_train_id.png"),),
    note="as the downloads unpack",
    known={
        "train": KnownSplit((7000,), labels="optional"),
        "val": KnownSplit((1000,)),
        "test": KnownSplit((2000,), labels="none"),
    },
    class_shares=_CLASS_SHARES,
    download=Download(
        "https://bdd-data.berkeley.edu",
        ("bdd100k_images_10k.zip", "bdd100k_sem_seg_labels_trainval.zip"),
        "both in one folder: they share the folder bdd100k",
    ),
)
