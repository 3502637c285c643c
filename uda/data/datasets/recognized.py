"""Data sets that are told by the values and names of their files, for drafts of descriptions.

Values alone decide nothing: many sets have 0 to 18 and 255. File names that no other set has do.
"""

import re
from collections.abc import Collection, Sequence
from typing import NamedTuple

from uda.data.datasets.camvid import CAMVID11_CLASSES
from uda.labels.spaces import CITYSCAPES, LabelSpace
from uda.labels.streets import TRAIN_IDS
from uda.labels.voc import VOC


class Recognized(NamedTuple):
    """What the values in label files mean."""

    name: str  # of the data set, and of its ids
    why: str
    space: LabelSpace | None  # None: the names of its classes are in a file beside it
    ignored: tuple[int, ...]  # values that are no class
    certain: bool


class _Signature(NamedTuple):
    name: str
    space: LabelSpace | None
    values: frozenset[int]  # that may occur
    typical: frozenset[int]  # of which some have to
    files: re.Pattern[str]  # names of images or labels that no other set has
    ignored: tuple[int, ...]


_CITY = r"[a-z-]+_\d{6}_\d{6}"
_SIGNATURES = (
    _Signature("CamVid (11 classes)", CAMVID11_CLASSES, frozenset(range(12)), frozenset({11}),
               re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_"), (11,)),
    _Signature("PASCAL VOC (21 classes)", VOC, frozenset({*range(21), 255}), frozenset(range(21)),
               re.compile(r"20\d\d_\d{6}\."), (255,)),
    _Signature("ADE20K (150 classes)", None, frozenset(range(151)), frozenset(range(1, 151)),
               re.compile(r"ADE_(train|val|test)_\d{8}"), (0,)),
    _Signature("Cityscapes (train ids)", TRAIN_IDS, frozenset({*range(19), 255}),
               frozenset(range(19)), re.compile(rf"{_CITY}_.*(labelTrainIds|trainids)", re.I),
               (255,)),
    _Signature("Cityscapes (label ids)", CITYSCAPES, frozenset(range(35)), frozenset(range(7, 35)),
               re.compile(rf"{_CITY}_.*labelIds"), ()),
)  # fmt: skip


def recognize(values: Collection[int], files: Sequence[str]) -> Recognized | None:
    """The known data set whose `values` these are and whose `files`, names without folders, are
    called so; without such names, Cityscapes' where these are its own. None for any other."""
    found = set(values)
    for name, space, allowed, typical, pattern, ignored in _SIGNATURES:
        named = sum(bool(pattern.search(file)) for file in files)
        if 2 * named > len(files) and found <= allowed and found & typical:
            return Recognized(
                name, "by its values and the names of its files", space, ignored, True
            )
    if found == {*range(CITYSCAPES.num_classes), 255}:
        return Recognized(
            "Cityscapes (train ids)",
            "by the values 0 to 18 and 255 alone",
            TRAIN_IDS,
            (255,),
            False,
        )
    trained = set(CITYSCAPES.trained_raw_ids)
    if (
        trained <= found <= set(CITYSCAPES.raw_to_train)
    ):  # nobody else numbers classes with its gaps
        why = "by the values 7, 8, 11, ..., 33 alone"
        return Recognized("Cityscapes (label ids)", why, CITYSCAPES, (), False)
    return None
