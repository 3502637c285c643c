"""Dark Zurich: nights, twilights and days in Zurich, 1920x1080; train ids of 50 nights.

`rgb_anon/train/<night|twilight|day>/<recording>/*_rgb_anon.png`: `train` is the night, which papers
adapt to, `train_twilight` and `train_day` are the rest. `val` is `rgb_anon/val/night` with labels
`gt/val/night/<recording>/*_gt_labelTrainIds.png`; the labels of `test` are on a server. `val_ref`
and `test_ref` are the same places by day. Scores on val and on test cannot be compared.

Source: Sakaridis et al., ICCV 2019, arXiv 1901.05946.
"""

from uda.data.patterns import Pattern
from uda.data.samples import Download, KnownSplit, Layout, Split
from uda.labels.streets import TRAIN_IDS

_NAME = "dark_zurich"
_FILES = "/*/*_rgb_anon.png"


def _split(name: str, folder: str, files: str = _FILES, labels: str = "") -> Split:
    images = (Pattern(f"rgb_anon/{folder}{files}", _NAME),)
    return Split(name, images, Pattern(labels, _NAME) if labels else None, folder=name)


_PARTS = (
    _split("train", "train/night"),
    _split("train_twilight", "train/twilight"),
    _split("train_day", "train/day"),
    _split("val", "val/night", labels="gt/val/night/*/*_gt_labelTrainIds.png"),
    _split("test", "test/night"),
    # Their names end in several ways; whole, they tell a reference from its night.
    _split("val_ref", "val_ref/day", "/*/*.png"),
    _split("test_ref", "test_ref/day", "/*/*.png"),
)

DARK_ZURICH = Layout(
    name=_NAME,
    short_name="DARK_ZURICH",
    folder="DarkZurich",
    splits=tuple(part.name for part in _PARTS),
    label_space=TRAIN_IDS,
    parts={part.name: part for part in _PARTS},
    note="as the downloads unpack",
    known={
        "train": KnownSplit((2416,), labels="none"),
        "train_twilight": KnownSplit((2920,), labels="none"),
        "train_day": KnownSplit((3041,), labels="none"),
        "val": KnownSplit((50,)),
        "test": KnownSplit((151,), labels="none"),
    },
    download=Download(
        "https://www.trace.ethz.ch/publications/2019/GCMA_UIoU",
        (
            "Dark_Zurich_train_anon.zip",
            "Dark_Zurich_val_anon.zip",
            "Dark_Zurich_test_anon_withoutGt.zip",
        ),
        "all in the folder DarkZurich: they share the folders rgb_anon and gt",
    ),
)
