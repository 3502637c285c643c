"""A folder of predicted label maps -> scores, without a network."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch

from uda.data.class_sets import ClassSet, class_set_named
from uda.data.files import read_train_ids
from uda.data.labels import LabelSpace
from uda.data.prediction_folder import Ids, Pair, check_files, read_prediction
from uda.data.registry import check_raw_ids
from uda.data.samples import Sample
from uda.errors import InputError, require
from uda.measures import Measured, Tally
from uda.reports import percent

_THREADS = 4  # each holds one image, about 100 MB at 1024x2048


class Counted(NamedTuple):
    """One image, counted."""

    tally: Tally
    largest: int  # value in the file of predictions


Progress = Callable[[Iterable[Counted]], Iterable[Counted]]


def score_pairs(
    pairs: Sequence[Pair],
    *,
    ids: Ids,
    space: LabelSpace,
    sets: Sequence[ClassSet] = (),
    boundary_ratio: float | None = None,
    progress: Progress = iter,
) -> Measured:
    """Scores of files of predictions, whose values are `ids`, against raw label files; among its
    facts is the share of the labeled pixels that are predicted as no class.

    A pixel predicted as no class is missed by the class it is labeled as, and counts against no
    other. `sets`: of classes, from `sets_of_maps`; `boundary_ratio`: of the image's diagonal, for
    boundary scores. `progress` may wrap the iteration over images to draw a bar. Raises InputError
    when a file cannot be read or used, or when the predictions look like other ids than `ids`.
    """
    check_files(pairs)
    check_raw_ids([Sample("labels", p.stem, p.prediction, p.labels) for p in pairs], space)
    empty = partial(Tally, space, sets=sets, boundary_ratio=boundary_ratio, no_class=True)
    total, largest = empty(), 0
    count = partial(_count, empty=empty, ids=ids, space=space)
    with ThreadPoolExecutor(_THREADS) as pool:
        for counted in progress(pool.map(count, pairs)):
            largest = max(largest, counted.largest)
            total.merge(counted.tally)
    _refuse_train_ids(pairs, largest, ids=ids, space=space)
    labeled, missed = total.matrix.counts.sum(), total.matrix.counts[:, -1].sum()
    no_class = {
        "value": percent(int(missed) / max(1, int(labeled))),
        "definition": "percent of the labeled pixels that are predicted as no class; misses",
    }
    measured = total.measured()
    return Measured(measured.scores, {"no_class": no_class, **measured.facts})


def sets_of_maps(names: Iterable[str], *, space: LabelSpace) -> list[ClassSet]:
    """The sets of classes called `names`; InputError when there is none of a name, or when label
    maps cannot tell its value."""
    sets = [class_set_named(name, label_space=space.name) for name in names]
    for class_set in sets:
        require(
            not class_set.restricted,
            f"{class_set.name} needs a network's probabilities, not its label maps "
            f"({class_set.definition}): score the network with eval_single.py",
        )
    return sets


def _count(pair: Pair, *, empty: Callable[[], Tally], ids: Ids, space: LabelSpace) -> Counted:
    predicted, largest = read_prediction(pair.prediction, ids=ids, space=space)
    height, width = predicted.shape
    labels = torch.from_numpy(read_train_ids(pair.labels, (height, width), space))
    tally = empty()
    tally.add(torch.from_numpy(predicted), labels)
    return Counted(tally, largest)


def _refuse_train_ids(pairs: Sequence[Pair], largest: int, *, ids: Ids, space: LabelSpace) -> None:
    """Train ids without a 255 are raw ids one by one, but sky or a car is in some image."""
    largest_train_id = space.num_classes - 1
    if ids == "raw" and largest <= largest_train_id < max(space.trained_raw_ids):
        raise InputError(
            f"{pairs[0].prediction} and {len(pairs) - 1} more files hold no value above "
            f"{largest_train_id}: these look like train ids; give --ids train"
        )
