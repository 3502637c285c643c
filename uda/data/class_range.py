"""Class list and label range against each other: what a shifted list of names looks like on disk.

A label file with an id without a class is wrong, and refused where it is read. That a class has
no pixel is a hint at most: most classes of a long list are rare. But a list that is too long by
a name that the labels do not know (`background`, say, where background is ignored) leaves the last
class without a pixel in every file, and all others with some.
"""

from collections.abc import Collection, Sequence

import numpy as np

from uda.data.label_files import read_raw_labels
from uda.data.samples import Sample, evenly_spaced
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

FILES_LOOKED_AT = 16  # of a data set's label files, before a run
_ENOUGH_FILES = 8  # fewer show too little


def range_warning(samples: Sequence[Sample]) -> str:
    """What the label files of `samples`, of which up to 16 are opened, let one think of the class
    list, in one line; "" if nothing.

    Raises InputError when one has an id that no class has, or cannot be read.
    """
    labeled = [sample for sample in samples if sample.labels is not None]
    looked_at = evenly_spaced(labeled, FILES_LOOKED_AT) if labeled else []
    space = looked_at[0].space if looked_at else None
    if space is None:
        return ""
    seen: set[int] = set()
    for sample in looked_at:
        assert sample.labels is not None
        raw = np.asarray(read_raw_labels(sample.labels, coding=space.coding))
        seen |= set(np.unique(space.to_train_ids(raw, str(sample.labels))).tolist())
    return cut_off_warning(seen, space, files=len(looked_at))


def range_facts(samples: Sequence[Sample]) -> dict[str, object]:
    """`range_warning` as what scores are published with; empty if there is none."""
    warning = range_warning(samples)
    return {"class_range_warning": warning} if warning else {}


def cut_off_warning(seen: Collection[int], space: LabelSpace, *, files: int) -> str:
    """One line when the train ids `seen` in so many label files are the whole class list but for
    its beginning or end, else "".

    Which files of the right class list hardly are: they lack rare classes from all over the list.
    """
    classes = sorted(set(seen) - {IGNORE_INDEX})
    places = [space.labeled.index(train_id) for train_id in classes]
    if files < _ENOUGH_FILES or not classes or len(classes) == len(space.labeled):
        return ""
    without_gap = places[-1] - places[0] + 1 == len(places)
    return describe_range(seen, space, files=files) if without_gap else ""


def lacks_an_end(seen: Collection[int], space: LabelSpace) -> bool:
    """Whether the first or the last class, but not every class, is missing from the train ids
    `seen`: what all label files of a data set do not show by chance."""
    ends = {space.labeled[0], space.labeled[-1]}
    return bool(set(seen) - {IGNORE_INDEX}) and not ends <= set(seen)


def describe_range(seen: Collection[int], space: LabelSpace, *, files: int) -> str:
    """Which classes occur and which do not, and what that may mean, in one line."""
    classes = sorted(set(seen) - {IGNORE_INDEX})
    first, last = space.classes[classes[0]], space.classes[classes[-1]]
    return (
        f"the classes in {files} label files go from {first} to {last}, the {space.num_classes} "
        f"names of {space.name} from {space.classes[0]} to {space.classes[-1]}: if the labels have "
        "no such class at all, names are shifted against ids"
    )
