"""ACDC: fog, night, rain and snow in Switzerland, 4006 images of 1920x1080 with train ids.

`rgb_anon/<condition>/<split>/<recording>/*_rgb_anon.png` and, below `gt/`, the same with
`*_gt_labelTrainIds.png`. `acdc` is all four conditions, `acdc_fog` and so on are one each. The
labels of `test` are on a server. The splits `train_ref`, `val_ref` and `test_ref` are the same
places in clear weather, not aligned: to train on them is a weak supervision that plain adaptation
lacks.

Source: Sakaridis et al., ICCV 2021, arXiv 2104.13395.
"""

from uda.data.patterns import Pattern
from uda.data.samples import Download, KnownSplit, Layout, Split
from uda.labels.streets import TRAIN_IDS

# By train id, of all conditions.
_CLASS_SHARES = (
    0.200, 0.055, 0.179, 0.0146, 0.0161, 0.0102, 0.0020, 0.0035, 0.178, 0.0153, 0.294, 0.0012,
    0.0002, 0.0205, 0.0030, 0.0022, 0.0045, 0.0003, 0.0006,
)  # fmt: skip
_REFERENCES = ("train_ref", "val_ref", "test_ref")
_DOWNLOAD = Download(
    "https://acdc.vision.ee.ethz.ch",
    ("rgb_anon_trainvaltest.zip", "gt_trainval.zip"),
    "both in the folder ACDC: they have the folders rgb_anon and gt; registration is needed",
)


def _layout(condition: str, counts: tuple[int, int, int], shares: tuple[float, ...] = ()) -> Layout:
    """One condition, or all of them: "*"."""
    name = "acdc" if condition == "*" else f"acdc_{condition}"
    # What is not removed of a reference's file name tells its sample from that of the fog.
    clear = Pattern(f"rgb_anon/{condition}/{{split}}/*/*_rgb_ref_*.png", name)
    train, val, test = counts
    return Layout(
        name=name,
        short_name=name.upper(),
        folder="ACDC",
        splits=("train", "val", "test", *_REFERENCES),
        label_space=TRAIN_IDS,
        part_of="" if condition == "*" else "acdc",
        images=f"rgb_anon/{condition}/{{split}}/*/*_rgb_anon.png",
        labels=f"gt/{condition}/{{split}}/*/*_gt_labelTrainIds.png",
        parts={split: Split(split, (clear,), None, folder=split) for split in _REFERENCES},
        beside=("rgb_anon/*/*/*/*_rgb_anon.png", "rgb_anon/*/*/*/*_rgb_ref_anon.png"),
        note="as the downloads unpack",
        known={
            "train": KnownSplit((train,), labels="optional"),
            "val": KnownSplit((val,)),
            "test": KnownSplit((test,), labels="none"),
            **{split: KnownSplit((count,), labels="none")
               for split, count in zip(_REFERENCES, counts, strict=True)},
        },
        class_shares=shares,
        download=_DOWNLOAD,
    )  # fmt: skip


ACDC = _layout("*", (1600, 406, 2000), _CLASS_SHARES)
ACDC_FOG = _layout("fog", (400, 100, 500))
ACDC_NIGHT = _layout("night", (400, 106, 500))
ACDC_RAIN = _layout("rain", (400, 100, 500))
ACDC_SNOW = _layout("snow", (400, 100, 500))
