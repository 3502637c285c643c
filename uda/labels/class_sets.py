"""Sets of classes that papers average over, by name.

"16-class mIoU" is four different numbers in the literature, up to two points apart: which classes a
prediction may be, and whether pixels of the others count, differ as much as the mean does.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from uda.labels.spaces import CITYSCAPES, IGNORE_INDEX, LabelSpace
from uda.utilities.config_tree import suggest
from uda.utilities.errors import InputError


@dataclass(frozen=True, slots=True)
class ClassSet:
    """Classes of a label space to average over, and which pixels and predictions that is about."""

    name: str
    classes: tuple[int, ...]  # train ids, ascending
    # Predictions are chosen among these classes only, and pixels labeled as another are ignored.
    # Such scores need the network's probabilities: a map of predicted classes does not have them.
    restricted: bool
    definition: str  # one sentence, to be published with every value

    def positions(self, train_ids: Tensor) -> Tensor:
        """Where in `classes` each of `train_ids` stands, 255 for those that do not; both integers
        0..255 of one shape. The result is int64."""
        table = torch.full((256,), IGNORE_INDEX, device=train_ids.device)
        table[list(self.classes)] = torch.arange(len(self.classes), device=train_ids.device)
        return table[train_ids.long()]


def class_set_named(name: str, *, space: LabelSpace) -> ClassSet:
    """The set called `name` of the classes of `space`, however its label files store them.

    Raises InputError, with the nearest name, when there is none.
    """
    known = CLASS_SETS[CITYSCAPES.name] if space.classes == CITYSCAPES.classes else {}
    if not known:
        raise InputError(
            f"label space {space.name} has no sets of classes; known: {', '.join(CLASS_SETS)}"
        )
    if name not in known:
        raise InputError(f"{space.name} has no set of classes {name!r}; {suggest(name, known)}")
    return known[name]


def _cityscapes_without(*names: str) -> tuple[int, ...]:
    return tuple(i for i, name in enumerate(CITYSCAPES.classes) if name not in names)


_SYNTHIA16 = _cityscapes_without("terrain", "truck", "train")
_SYNTHIA13 = _cityscapes_without("wall", "fence", "pole", "terrain", "truck", "train")

_CITYSCAPES_SETS = (
    ClassSet(
        name="miou19",
        classes=_cityscapes_without(),
        restricted=False,
        definition="mean IoU over all 19 classes; predictions are among the 19, and pixels labeled "
        "as any of the 19 are counted",
    ),
    # What AdaptSegNet and DAFormer print for SYNTHIA.
    ClassSet(
        name="miou16_subset",
        classes=_SYNTHIA16,
        restricted=False,
        definition="mean IoU over SYNTHIA's 16 classes (without terrain, truck, train); "
        "predictions are among all 19, and pixels labeled as any of the 19 are counted",
    ),
    ClassSet(
        name="miou13_subset",
        classes=_SYNTHIA13,
        restricted=False,
        definition="mean IoU over 13 of SYNTHIA's classes (without wall, fence, pole, terrain, "
        "truck, train); predictions are among all 19, and pixels labeled as any of the 19 are "
        "counted",
    ),
    # What ProDA and pixmatch print for SYNTHIA.
    ClassSet(
        name="miou16_restricted",
        classes=_SYNTHIA16,
        restricted=True,
        definition="mean IoU over SYNTHIA's 16 classes (without terrain, truck, train); "
        "predictions are among these 16 only, and pixels labeled terrain, truck or train are "
        "ignored",
    ),
)  # fmt: skip

# By the name of the label space whose classes they are of, then by their own.
CLASS_SETS: Mapping[str, Mapping[str, ClassSet]] = {
    CITYSCAPES.name: {class_set.name: class_set for class_set in _CITYSCAPES_SETS}
}
