"""Cityscapes: `leftImg8bit/<split>/<city>/` images, `gtFine/<split>/<city>/` label ids.

Source: Cordts et al., CVPR 2016, arXiv 1604.01685. The raw `*_labelIds.png` are read; the
`*_labelTrainIds.png` of other projects are not needed.
"""

from pathlib import Path

from uda.data.labels import CITYSCAPES as CITYSCAPES_CLASSES
from uda.data.samples import Layout, Sample, list_files
from uda.errors import InputError

_NAME = "cityscapes"
_IMAGE_SUFFIX = "_leftImg8bit.png"
LABEL_SUFFIX = "_gtFine_labelIds.png"
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


CITYSCAPES = Layout(
    name=_NAME,
    short_name="CITYS",
    folder="Cityscapes",
    splits=("train", "train_extra", "val", "test"),
    label_space=CITYSCAPES_CLASSES,
    list_samples=_list_samples,
    expected=_EXPECTED,
)
