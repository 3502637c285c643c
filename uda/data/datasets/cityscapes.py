"""Cityscapes: `leftImg8bit/<split>/<city>/` images, `gtFine/<split>/<city>/` label ids.

Source: Cordts et al., CVPR 2016, arXiv 1604.01685. The raw `*_labelIds.png` are read; the
`*_labelTrainIds.png` of other projects are not needed.
"""

from pathlib import Path

from uda.data.samples import KnownSplit, Layout, Sample, list_files
from uda.labels.spaces import CITYSCAPES as CITYSCAPES_CLASSES
from uda.utilities.errors import InputError

_NAME = "cityscapes"
_IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelIds.png"
# By train id, from road to bicycle; rough.
_CLASS_SHARES = (
    0.37, 0.06, 0.23, 0.0066, 0.0088, 0.0123, 0.0021, 0.0055, 0.159, 0.0116, 0.04, 0.0122, 0.0014,
    0.07, 0.0027, 0.0024, 0.0023, 0.001, 0.0041,
)  # fmt: skip
_EXPECTED = (
    f"leftImg8bit/<split>/<city>/<name>{_IMAGE_SUFFIX} and gtFine/<split>/<city>/"
    f"<name>{LABEL_SUFFIX} (as the downloads unpack)"
)


def _list_samples(root: Path, split: str, labeled: bool) -> list[Sample]:
    images = root / "leftImg8bit" / split
    cities = [name for name in list_files(images, "", _EXPECTED) if (images / name).is_dir()]
    samples = []
    for city in cities:
        label_folder = root / "gtFine" / split / city
        label_names = set(list_files(label_folder, LABEL_SUFFIX, _EXPECTED)) if labeled else set()
        for file_name in list_files(images / city, _IMAGE_SUFFIX, _EXPECTED):
            name = file_name.removesuffix(_IMAGE_SUFFIX)
            if labeled and name + LABEL_SUFFIX not in label_names:
                raise InputError(
                    f"{images / city / file_name} has no label; expected "
                    f"{label_folder / name}{LABEL_SUFFIX}: complete the download"
                )
            labels = label_folder / (name + LABEL_SUFFIX) if labeled else None
            samples.append(Sample(_NAME, name, images / city / file_name, labels))
    return samples


def _folders(root: Path, split: str) -> tuple[Path, Path]:
    return root / "leftImg8bit" / split, root / "gtFine" / split


CITYSCAPES = Layout(
    name=_NAME,
    short_name="CITYS",
    folder="Cityscapes",
    splits=("train", "train_extra", "val", "test"),
    label_space=CITYSCAPES_CLASSES,
    list_samples=_list_samples,
    expected=_EXPECTED,
    folders=_folders,
    image_suffix=_IMAGE_SUFFIX,
    label_suffix=LABEL_SUFFIX,
    known={
        "train": KnownSplit((2975,), labels="optional"),
        "train_extra": KnownSplit((19998,), labels="none"),  # its labels are coarse ones
        "val": KnownSplit((500,)),
        "test": KnownSplit((1525,), labels="none"),  # its label files are dummies
    },
    class_shares=_CLASS_SHARES,
)
