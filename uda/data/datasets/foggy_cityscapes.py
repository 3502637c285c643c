"""Foggy Cityscapes: fog of three densities in Cityscapes' images, with Cityscapes' label files.

`leftImg8bit_foggy/<split>/<city>/<name>_leftImg8bit_foggy_beta_<beta>.png` next to `gtFine`. beta
is the attenuation per meter: visibility is 2.996 / beta, so 600, 300 and 150 m. Papers mostly mean
0.02. The scenes are those of Cityscapes, each three times: whoever trains on one image of a scene
is not scored on another.

Source: Sakaridis et al., IJCV 2018, arXiv 1708.07819.
"""

from uda.data.datasets.cityscapes import CITYSCAPES
from uda.data.samples import Download, KnownSplit, Layout
from uda.labels.spaces import CITYSCAPES as CITYSCAPES_CLASSES


def _layout(beta: str) -> Layout:
    """beta as in the names of files: formatting a number would change it."""
    digits = beta.replace(".", "")
    return Layout(
        name=f"foggy_cityscapes_{digits}",
        short_name=f"FOGGY_{digits}",
        folder=CITYSCAPES.folder,
        splits=("train", "val", "test"),
        label_space=CITYSCAPES_CLASSES,
        images=f"leftImg8bit_foggy/{{split}}/*/*_leftImg8bit_foggy_beta_{beta}.png",
        labels=CITYSCAPES.labels,
        note=f"as the downloads unpack, beta {beta}; labels are those of {CITYSCAPES.name}",
        known={
            "train": KnownSplit((2975,), labels="optional"),
            "val": KnownSplit((500,)),
            "test": KnownSplit((1525,), labels="none"),
        },
        class_shares=CITYSCAPES.class_shares,
        scenes=CITYSCAPES.name,
        beside=("leftImg8bit_foggy/**/*_leftImg8bit_foggy_beta_*.png",),
        download=Download(
            "https://www.cityscapes-dataset.com/downloads",
            ("leftImg8bit_trainvaltest_foggy.zip", "gtFine_trainvaltest.zip"),
            f"both in the folder {CITYSCAPES.folder}; registration is needed",
        ),
    )


FOGGY_0005 = _layout("0.005")
FOGGY_001 = _layout("0.01")
FOGGY_002 = _layout("0.02")
