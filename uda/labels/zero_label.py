"""Label spaces without their first class: names and ids move together.

Where they did not, a class list of 59 names was used with labels of 58 classes, and every printed
name was that of the class before.
"""

from dataclasses import replace

from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import require


def reduce_zero_label(space: LabelSpace, *, name: str) -> LabelSpace:
    """The label space `name`, in which what is train id 0 in `space` is ignored and every other
    train id is one lower: mmsegmentation's `reduce_zero_label`.

    Names, report names, colors, mirror swaps and what is not scored move along. Raises InputError
    when no class would be left, or when class 0 has another for its mirror image.
    """
    require(space.num_classes > 1, f"{space.name} has one class: without it there would be none")
    swapped = [pair for pair in space.mirror_swaps if 0 in pair]
    require(
        not swapped,
        f"{space.name}: {space.classes[0]} changes places with another class in mirror images, so "
        "it cannot be left out alone: choose a label space without that swap",
    )
    return replace(
        space,
        name=name,
        classes=space.classes[1:],
        report_names=space.report_names[1:],
        palette=space.palette[1:],
        raw_to_train={raw_id: _reduced(train) for raw_id, train in space.raw_to_train.items()},
        mirror_swaps=tuple((one - 1, other - 1) for one, other in space.mirror_swaps),
        unscored=tuple(train_id - 1 for train_id in space.unscored if train_id),
    )


def _reduced(train_id: int) -> int:
    return IGNORE_INDEX if train_id in (0, IGNORE_INDEX) else train_id - 1
