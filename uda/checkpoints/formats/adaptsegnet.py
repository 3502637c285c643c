"""DeepLab-v2 with summed branches: files of AdaptSegNet and of projects that took its network, such
as DACS, in which 2 of the 4 branches are summed; and of ADVENT and FDA, in which all 4 are."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from torch import Tensor

from uda.checkpoints.formats.base import CAFFE_QUIRKS, Entries, ForeignFormat
from uda.models.deeplabv2 import DeepLabV2Config
from uda.models.encoders.base import CAFFE

_HEADS = ("layer5.", "layer6.")
# Standard errors of the correlation of two branches: below the first, they were drawn one by one;
# above the second, trained together.
_DRAWN, _TRAINED = 5.0, 10.0


def _sum_heads(
    levels: Literal[1, 2], branches: Literal[2, 4]
) -> Callable[[Entries], DeepLabV2Config]:
    return lambda entries: DeepLabV2Config(
        backbone_weights="none",
        batch_norm="frozen_affine",
        levels=levels,
        head="sum",
        aspp_branches=branches,
        dropout=0.0,
    )


def kinship(first: object, second: object) -> float | None:
    """The correlation of two branches' weights, summed over their kernels, in standard errors.

    Branches that are summed get gradients from the same features and errors, so training makes
    them alike; a branch that is not summed stays as it was drawn. None where it cannot be said.

    first, second: (classes, in, h, w)
    """
    summed = []
    for weight in (first, second):
        if not isinstance(weight, Tensor) or weight.ndim != 4 or not weight.is_floating_point():
            return None
        values = weight.double().sum(dim=(2, 3)).flatten()
        summed.append(values - values.mean())
    one, two = summed
    size = (one.norm() * two.norm()).item()
    if one.shape != two.shape or not 0 < size < float("inf"):
        return None
    return abs(one @ two).item() / size * len(one) ** 0.5


def summed_branches(entries: Entries) -> int | None:
    """How many of the 4 branches of the heads are summed, by which of them were trained together.
    None where the file does not tell."""

    def of(first: int, second: int) -> list[float | None]:
        names = [f"{head}conv2d_list.{{}}.weight" for head in _HEADS]
        pairs = [(name.format(first), name.format(second)) for name in names]
        return [kinship(entries[a], entries[b]) for a, b in pairs if a in entries and b in entries]

    always = [value or 0.0 for value in of(0, 1)]
    sometimes = [value or _DRAWN for pair in ((2, 3), (0, 2), (0, 3)) for value in of(*pair)]
    if not always or not sometimes or min(always) < _TRAINED:
        return None  # nothing was trained, or hardly
    if max(sometimes) < _DRAWN:
        return 2
    return 4 if min(sometimes) > _TRAINED else None


def _applies(branches: int) -> Callable[[Entries], bool | None]:
    def applies(entries: Entries) -> bool | None:
        found = summed_branches(entries)
        return None if found is None else found == branches

    return applies


ADAPTSEGNET = ForeignFormat(
    name="AdaptSegNet two-level DeepLab-v2",
    project="adaptsegnet",
    network=_sum_heads(2, 2),
    prefixes={"": "backbone.", "layer5.": "auxiliary.", "layer6.": "main."},
    marks=("layer5.conv2d_list.0.weight", "layer6.conv2d_list.0.weight"),
    applies=_applies(2),
    unused=("fc.",),  # ImageNet's classifier
    classifier="layer6.conv2d_list.0.weight",
    normalization=CAFFE,
    protocol="adaptsegnet",
    quirks=f"2 of 4 ASPP branches summed; {CAFFE_QUIRKS}",
)
ADAPTSEGNET_SINGLE = replace(
    ADAPTSEGNET,
    name="AdaptSegNet single-level DeepLab-v2",
    network=_sum_heads(1, 2),
    prefixes={"": "backbone.", "layer5.": "main."},
    classifier="layer5.conv2d_list.0.weight",
)
ADAPTSEGNET_MAIN = replace(
    ADAPTSEGNET,
    name="AdaptSegNet two-level DeepLab-v2 without auxiliary head",
    network=_sum_heads(1, 2),
    prefixes={"": "backbone.", "layer6.": "main."},
)

_ALL = f"4 of 4 ASPP branches summed; {CAFFE_QUIRKS}"
ADVENT = replace(
    ADAPTSEGNET,
    name="ADVENT two-level DeepLab-v2",
    project="advent",
    network=_sum_heads(2, 4),
    applies=_applies(4),
    quirks=_ALL,
)
ADVENT_MAIN = replace(
    ADAPTSEGNET_MAIN,
    name="ADVENT two-level DeepLab-v2 without auxiliary head",
    project="advent",
    network=_sum_heads(1, 4),
    applies=_applies(4),
    quirks=_ALL,
)
FDA = replace(
    ADAPTSEGNET_SINGLE,
    name="FDA single-level DeepLab-v2",
    project="fda",
    network=_sum_heads(1, 4),
    applies=_applies(4),
    quirks=_ALL,
)
ADVENT_SINGLE = replace(FDA, name="ADVENT single-level DeepLab-v2", project="advent")
