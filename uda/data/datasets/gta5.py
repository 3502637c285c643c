"""GTA5 and its translations: `images/00001.png` beside `labels/00001.png`.

Source: Richter et al., ECCV 2016, arXiv 1608.02192. The label files are palette PNGs whose index
is the Cityscapes label id. CycleGTA5 holds the same scenes after a CycleGAN made them look like
Cityscapes (CyCADA, arXiv 1711.03213); its images may be smaller than GTA5's labels.
"""

from functools import partial
from pathlib import Path

from uda.data.samples import KnownSplit, Layout, Sample, list_files
from uda.labels.spaces import CITYSCAPES
from uda.utilities.errors import InputError

# By train id, from road to bicycle; rough.
_CLASS_SHARES = (
    0.36, 0.09, 0.19, 0.021, 0.007, 0.012, 0.0015, 0.001, 0.084, 0.024, 0.155, 0.004, 0.0004, 0.029,
    0.013, 0.004, 0.0007, 0.0004, 0.0001,
)  # fmt: skip

_EXPECTED = "images/00001.png, ... and labels/00001.png, ... (as the downloads unpack)"


def _list_samples(
    dataset: str, translated: bool, root: Path, split: str, labeled: bool
) -> list[Sample]:
    del split  # all of the set is for training
    names = list_files(root / "images", ".png", _EXPECTED)
    label_names = set(list_files(root / "labels", ".png", _EXPECTED)) if labeled else set()
    missing = [name for name in names if labeled and name not in label_names]
    if missing:
        raise InputError(
            f"{root}: {len(missing)} of {len(names)} images have no label, the first is "
            f"images/{missing[0]}; expected labels/{missing[0]}: complete the download or remove "
            "the images"
        )
    return [
        Sample(
            dataset,
            name.removesuffix(".png"),
            root / "images" / name,
            root / "labels" / name if labeled else None,
            translated,
        )
        for name in names
    ]


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    del split  # as above
    return root / "images", root / "labels"


def _layout(name: str, folder: str, *, counts: tuple[int, ...], translated: bool) -> Layout:
    return Layout(
        name=name,
        # Snapshots of the translated set are called GTA5 too, as in the experiment log.
        short_name="GTA5",
        folder=folder,
        splits=("train",),
        label_space=CITYSCAPES,
        list_samples=partial(_list_samples, name, translated),
        expected=_EXPECTED,
        folders=_folders,
        image_suffix=".png",
        label_suffix=".png",
        known={"train": KnownSplit(counts)},
        class_shares=_CLASS_SHARES,
        translated=translated,
    )


GTA5 = _layout("gta5", "GTA5", counts=(24966,), translated=False)
# Some translated all of GTA5, some the images that CyCADA's authors published.
CYCLEGTA5 = _layout("cyclegta5", "CycleGTA5", counts=(22061, 24966), translated=True)
