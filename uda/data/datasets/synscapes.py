"""Synscapes: `img/rgb/1.png` and `img/class/1.png`, 25,000 of 1440x720, synthetic.

Label files have Cityscapes' ids. `img/rgb-2k` has the images once more, in 2048x1024: their labels
have another size, so they are not read.

Source: Wrenninge and Unger, 2018, arXiv 1810.08705.
"""

from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES

SYNSCAPES = Layout(
    name="synscapes",
    short_name="SYNSCAPES",
    folder="Synscapes",
    splits=("train",),
    label_space=CITYSCAPES,
    images="img/rgb/*.png",
    labels="img/class/*.png",
    note="as the download unpacks",
    known={"train": KnownSplit((25000,))},
    domain="source",
    download=Download(
        "https://synscapes.on.liu.se",
        ("Synscapes (25,000 images)",),
        "so that img/rgb and img/class are in the folder Synscapes; registration is needed",
    ),
)
