"""The cheap part of scripts/check_data.py, done whenever a run starts."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from uda.data.class_range import FILES_LOOKED_AT, range_warning
from uda.data.config import DataConfig, DomainConfig
from uda.data.known_files import KnownFiles
from uda.data.label_files import read_raw_labels
from uda.data.pseudo_label_folder import PseudoLabelFolder
from uda.data.registry import layout_named, list_dataset
from uda.data.samples import Sample, evenly_spaced
from uda.data.toy_city.city import is_toy_city
from uda.data.translated_folder import known_split
from uda.labels.spaces import IGNORE_INDEX
from uda.utilities.errors import InputError

_FILES_LOOKED_AT = 8  # of a domain


def check_some(
    samples: Sequence[Sample], pseudo_labels: PseudoLabelFolder | None, files: KnownFiles
) -> None:
    """Raises InputError when the header of one of a few images, or the pseudo-labels of one, cannot
    be used; so a wrong folder is found before the first step."""
    looked_at = evenly_spaced(samples, _FILES_LOOKED_AT)
    headers = files.headers([sample.image for sample in looked_at])
    for sample, header in zip(looked_at, headers, strict=True):
        if pseudo_labels is not None:
            pseudo_labels.read(sample.stem, header.size_when(upright=bool(sample.upright)))


def refuse_all_ignored(samples: Sequence[Sample], name: str) -> None:
    """Raises InputError when no pixel of some label files of the domain called `name` has a class:
    the run would go to its end without learning anything."""
    labeled = [sample for sample in samples if sample.labels is not None]
    looked_at = evenly_spaced(labeled, FILES_LOOKED_AT) if labeled else []
    for sample in looked_at:
        if sample.labels is None or sample.space is None:
            return
        raw = np.asarray(read_raw_labels(sample.labels, coding=sample.space.coding))
        if (sample.space.to_train_ids(raw, str(sample.labels)) != IGNORE_INDEX).any():
            return
    if looked_at:
        raise InputError(
            f"no pixel of {len(looked_at)} label files of the {name}, such as "
            f"{looked_at[0].labels}, has a class: all are ignored, and nothing would be learned; "
            "give other label files or, of a data set of your own, list their values with classes"
        )


def count_remarks(data: DataConfig, root: Path, *, dataset: str | None, split: str) -> list[str]:
    """What is to be said of data sets below `root` that have not as many images as is known, one
    line each: those a run trains on and the split of `dataset`, if any, it is scored on."""
    if is_toy_city(root):
        return []
    remarks = []
    for name, part in _used((data.source, data.target), dataset, split):
        layout = layout_named(name)
        known = known_split(layout, root / layout.folder, part)
        count = len(list_dataset(root, name, part, labeled=False))
        if known is not None and count not in known.counts:
            counts = " or ".join(map(str, known.counts))
            remarks.append(
                f"{name} {part}: {count} images, known are {counts}; python "
                "scripts/check_data.py says what is missing"
            )
    return remarks


def range_remarks(data: DataConfig, root: Path, *, dataset: str | None, split: str) -> list[str]:
    """What is to be said of data sets whose labels are not of all classes (`range_warning`), one
    line each: those that the run learns labels of, and the split of `dataset` it is scored on."""
    if is_toy_city(root):
        return []
    learned = (data.source, data.target if data.target_ground_truth else None)
    warnings = {
        f"{name} {part}": range_warning(list_dataset(root, name, part, labeled=True))
        for name, part in _used(learned, dataset, split)
    }
    return [f"{name}: {warning}" for name, warning in warnings.items() if warning]


def _used(
    domains: Sequence[DomainConfig | None], dataset: str | None, split: str
) -> dict[tuple[str, str], None]:
    """Data sets and splits that are scored on or, as a whole, trained on; each once, in order."""
    used = {} if dataset is None else {(dataset, split): None}
    for domain in domains:
        if domain is not None and domain.first is None:  # a part is what was asked for
            used |= dict.fromkeys(product(domain.datasets, domain.splits))
    return used
