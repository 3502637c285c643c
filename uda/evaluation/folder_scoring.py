"""A folder of predicted label maps -> scores, without a network."""

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import numpy as np
import torch

from uda.data.class_range import cut_off_warning
from uda.data.label_files import read_raw_labels
from uda.data.prediction_folder import Ids, Pair, check_files, read_prediction
from uda.data.registry import LABEL_SPACES
from uda.evaluation.measures import Measured, Tally
from uda.evaluation.named_measures import MEASURES, MeasureName
from uda.evaluation.reports import percent
from uda.labels.class_sets import ClassSet, class_set_named
from uda.labels.spaces import LabelSpace
from uda.utilities.errors import require

_THREADS = 4  # each holds one image, about 100 MB at 1024x2048


class Counted(NamedTuple):
    """One image, counted."""

    tally: Tally
    largest: tuple[int, int]  # largest value in the file of predictions, and in that of labels


Progress = Callable[[Iterable[Counted]], Iterable[Counted]]


def score_pairs(
    pairs: Sequence[Pair],
    *,
    ids: Ids,
    space: LabelSpace,
    sets: Sequence[ClassSet] = (),
    boundary_ratio: float | None = None,
    measures: Sequence[MeasureName] = (),
    progress: Progress = iter,
) -> Measured:
    """Scores of files of predictions, whose values are `ids`, against raw label files; the facts
    include the share of the labeled pixels that are predicted as no class.

    A pixel predicted as no class is a miss of the class it is labeled as, and counts against no
    other. `sets`: of classes, from `sets_of_maps`; `boundary_ratio`: of the image's diagonal, for
    boundary scores; `measures`: names of named_measures.py. `progress` may wrap the iteration
    over images to draw a bar. Raises InputError when a file cannot be read or used. Files that look
    like train ids instead of raw ids, which cannot be proved, are a warning among the facts.
    """
    for name in measures:
        require(
            not MEASURES[name].needs_probabilities,
            f"{name} is computed from a network's probabilities, not from label maps: score the "
            "network with eval_single.py",
        )
    require(
        ids == "train" or not space.raw_colors,
        f"label files of {space.name} hold colors: predictions must be train ids, omit --ids",
    )
    check_files(pairs)
    empty = partial(
        Tally, space, sets=sets, boundary_ratio=boundary_ratio, measures=measures, no_class=True
    )
    total, largest = empty(), (0, 0)
    count = partial(_count, empty=empty, ids=ids, space=space)
    with ThreadPoolExecutor(_THREADS) as pool:
        for counted in progress(pool.map(count, pairs)):
            largest = (
                max(largest[0], counted.largest[0]),
                max(largest[1], counted.largest[1]),
            )
            total.merge(counted.tally)
    counts = total.matrix.counts
    warnings = _suspicions(largest, ids=ids, space=space)
    seen = counts[: space.num_classes].sum(dim=1).nonzero().flatten().tolist()
    cut_off = cut_off_warning(seen, space, files=len(pairs))
    warnings |= {"class_range_warning": cut_off} if cut_off else {}
    labeled, missed = counts.sum(), counts[:, -1].sum()
    no_class = {
        "value": percent(int(missed) / max(1, int(labeled))),
        "definition": "percent of the labeled pixels that are predicted as no class; misses",
    }
    measured = total.measured()
    return Measured(measured.scores, {**warnings, "no_class": no_class, **measured.facts})


def sets_of_maps(names: Iterable[str], *, space: LabelSpace) -> list[ClassSet]:
    """The sets of classes called `names`; InputError when a name is unknown, or when its value
    cannot be computed from label maps."""
    sets = [class_set_named(name, space=space) for name in names]
    for class_set in sets:
        require(
            not class_set.restricted,
            f"{class_set.name} is computed from a network's probabilities, not from label maps "
            f"({class_set.definition}): score the network with eval_single.py",
        )
    return sets


def _count(pair: Pair, *, empty: Callable[[], Tally], ids: Ids, space: LabelSpace) -> Counted:
    predicted, largest = read_prediction(pair.prediction, ids=ids, space=space)
    height, width = predicted.shape
    raw = np.asarray(read_raw_labels(pair.labels, (height, width), coding=space.coding))
    labels = torch.from_numpy(space.to_train_ids(raw, str(pair.labels)))
    tally = empty()
    tally.add(torch.from_numpy(predicted), labels)
    return Counted(tally, (largest, int(raw.max())))


def _suspicions(largest: tuple[int, int], *, ids: Ids, space: LabelSpace) -> dict[str, object]:
    """A warning if raw ids are no larger than train ids: either the highest raw ids are absent, or
    these are train ids, each of which is the raw id of another class. Data sets that a user's file
    describes declare their ids, so they are not checked."""
    if space.name not in LABEL_SPACES:
        return {}
    highest = space.num_classes - 1
    raw = {"labels": largest[1]} | ({"predictions": largest[0]} if ids == "raw" else {})
    odd = [name for name, value in raw.items() if value <= highest < max(space.trained_raw_ids)]
    if not odd:
        return {}
    return {
        "warning": f"no value of the {' and '.join(odd)} is above {highest}: if these are train "
        "ids and not raw ids, the scores are meaningless"
    }
