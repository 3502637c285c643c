"""GTA5 and its translations: `images/00001.png` and `labels/00001.png`.

Source: Richter et al., ECCV 2016, arXiv 1608.02192. The label files are palette PNGs whose index
is the Cityscapes label id. CycleGTA5 has the same scenes after a CycleGAN made them look like
Cityscapes (CyCADA, arXiv 1711.03213); its images may be smaller than GTA5's labels.
"""

from collections.abc import Sequence

from uda.data.patterns import Pattern
from uda.data.samples import Download, KnownSplit, Layout, Split
from uda.labels.spaces import CITYSCAPES

# By train id, from road to bicycle; rough.
_CLASS_SHARES = (
    0.36, 0.09, 0.19, 0.021, 0.007, 0.012, 0.0015, 0.001, 0.084, 0.024, 0.155, 0.004, 0.0004, 0.029,
    0.013, 0.004, 0.0007, 0.0004, 0.0001,
)  # fmt: skip


def _both(suffixes: Sequence[str]) -> Split:
    """The one split, of images of all these kinds."""
    images = tuple(Pattern(f"images/*.{suffix}", "images") for suffix in suffixes)
    return Split("train", images, Pattern("labels/*.png", "labels"), folder="train")


def _layout(
    name: str,
    folder: str,
    *,
    counts: tuple[int, ...],
    translated: bool,
    download: Download,
    suffixes: tuple[str, ...] = ("png",),
) -> Layout:
    return Layout(
        name=name,
        # Snapshots of the translated set are called GTA5 too, as in the experiment log.
        short_name="GTA5",
        folder=folder,
        splits=("train",),
        label_space=CITYSCAPES,
        images="images/*.png",
        labels="labels/*.png",
        note="as the downloads unpack",
        known={"train": KnownSplit(counts)},
        class_shares=_CLASS_SHARES,
        parts={} if suffixes == ("png",) else {"train": _both(suffixes)},
        translated=translated,
        translated_as="" if translated else "cyclegta5",
        domain="source",
        download=download,
    )


GTA5 = _layout(
    "gta5",
    "GTA5",
    counts=(24966,),
    translated=False,
    download=Download(
        "https://download.visinf.tu-darmstadt.de/data/from_games",
        ("the ten archives of images", "the ten archives of labels"),
        "all in the folder GTA5: they share the folders images and labels",
    ),
)
# Some translated all of GTA5, some the images that CyCADA's authors published.
CYCLEGTA5 = _layout(
    "cyclegta5",
    "CycleGTA5",
    counts=(22061, 24966),
    translated=True,
    suffixes=("png", "jpg"),
    download=Download(
        "https://github.com/jhoffman/cycada_release",
        ("the translated images",),
        "in CycleGTA5/images; CycleGTA5/labels may be a link to GTA5/labels",
    ),
)
