"""The data sets by name, found below one data root."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

import uda.data.datasets
from uda.data.class_range import FILES_LOOKED_AT
from uda.data.config import DataConfig, DomainConfig
from uda.data.described.layouts import described_layout, is_described
from uda.data.known_files import KnownFiles
from uda.data.label_files import read_raw_labels
from uda.data.listing import list_split
from uda.data.picture_kinds import check_fit
from uda.data.samples import Layout, Sample, evenly_spaced
from uda.labels.spaces import CITYSCAPES, NO_CLASSES, LabelSpace
from uda.utilities.config_tree import suggest
from uda.utilities.discovery import instances_of
from uda.utilities.errors import InputError, require, shown
from uda.utilities.reading import expanded


def _listing_order(layout: Layout) -> tuple[bool, bool, bool]:
    """Street scenes first; of those the sources, which have no split to score on, then the sets
    that are stored as Cityscapes is."""
    space, is_source = layout.label_space, layout.domain == "source"
    return space.classes != CITYSCAPES.classes, not is_source, space is not CITYSCAPES


LAYOUTS = {
    layout.name: layout
    for layout in sorted(instances_of(uda.data.datasets, Layout), key=_listing_order)
}
LABEL_SPACES = {layout.label_space.name: layout.label_space for layout in LAYOUTS.values()}


def scored_dataset(space: LabelSpace) -> Layout:
    """The data set that networks with the classes of `space` are scored on, whatever it calls or
    stores them."""
    return next(
        layout
        for layout in LAYOUTS.values()
        if layout.label_space.classes == space.classes and layout.domain != "source"
    )


def scored_on(space: LabelSpace) -> str:
    """The name of the data set that networks of that label space are scored on; where there is
    none, that of the label space, which stands for the user's own."""
    known = any(space.classes == other.classes for other in LABEL_SPACES.values())
    return scored_dataset(space).name if known else space.name


def layout_named(name: str) -> Layout:
    """The data set called `name`, described by the TOML file of this name, or made of the images in
    this folder; InputError with the nearest name when there is none."""
    if is_described(name):
        layout = described_layout(name)
        if layout.label_space is NO_CLASSES and layout.name in LAYOUTS:
            return replace(layout, name=f"my_{layout.name}")
        require(
            layout.name not in (*LAYOUTS, *LABEL_SPACES),
            f"{name}: name is {layout.name}, which is a data set of this library: give another",
        )
        return layout
    if name not in LAYOUTS:
        raise InputError(
            f"there is no data set {shown(name)}; {suggest(name, LAYOUTS)}, or the path of a .toml "
            "file that describes one, or of a folder of images, with a slash: ./photographs"
        )
    return LAYOUTS[name]


def data_root(configured: str) -> Path:
    """The folder that holds the data sets: `configured` or, if empty, UDA_DATA."""
    text = configured or os.environ.get("UDA_DATA", "")
    first = (next(iter(LAYOUTS.values())), scored_dataset(CITYSCAPES))
    folders = f"{', '.join(f'{layout.folder}/' for layout in first)} and others (python "
    folders += "scripts/get_ready.py says which"
    if not text:
        raise InputError(
            f"no data root: give --data-root DIR or set UDA_DATA; DIR holds {folders})"
        )
    root = expanded(Path(text), "the data root")
    if not root.is_dir():
        raise InputError(
            f"data root {root} does not exist: give --data-root DIR; DIR holds {folders}; "
            "scripts/make_toy_city.py makes a small one)"
        )
    return root


def root_of(configured: str, datasets: Iterable[str]) -> Path:
    """`data_root`, where one of `datasets` is below it; files that describe one say where it is."""
    known = [name for name in datasets if not is_described(name)]
    for name in known:  # an unknown one has no data root
        layout_named(name)
    return data_root(configured) if known else Path()


def refuse_unused_root(given: str | None, datasets: Iterable[str]) -> None:
    """Raises InputError when the user gave a data root that none of `datasets` uses."""
    described = list(datasets)
    require(
        not given or not all(map(is_described, described)),
        f"data root {given}: it is not used, as {', '.join(dict.fromkeys(described))} "
        "says itself where its data are: omit --data-root and data.root",
    )


def datasets_of(data: DataConfig) -> list[str]:
    """The names of all data sets that a run trains on, each once."""
    domains = [domain for domain in (data.source, data.target) if domain is not None]
    return list(dict.fromkeys(name for domain in domains for name in domain.datasets))


def list_dataset(root: Path, name: str, split: str, *, labeled: bool) -> list[Sample]:
    """Samples of one split of the data set `name` below `root`, in sorted order."""
    layout = layout_named(name)
    folder = root / layout.folder
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; expected it to hold {layout.expected}")
    return list_split(layout, folder, split, labeled=labeled)


def list_domain(data: DataConfig, domain: DomainConfig, *, labeled: bool) -> list[Sample]:
    """The samples a domain trains on: its data sets and splits joined, then cut to the first N."""
    root = root_of(data.root, domain.datasets)
    samples = [
        sample
        for name in domain.datasets
        for split in domain.splits
        for sample in list_dataset(root, name, split, labeled=labeled)
        if sample.name not in data.exclude
    ]
    if not samples:
        raise InputError(
            f"no images are left of datasets {domain.datasets}, splits {domain.splits}: name at "
            "least one of each, and exclude fewer of their samples"
        )
    name, times = Counter(sample.name for sample in samples).most_common(1)[0]
    if times > 1:
        raise InputError(
            f"{name} is listed {times} times by datasets {domain.datasets}, splits "
            f"{domain.splits}: name each once"
        )
    if domain.first is not None:
        if domain.first > len(samples):
            raise InputError(
                f"first {domain.first} of {'+'.join(domain.datasets)}: there are only "
                f"{len(samples)} images"
            )
        samples = samples[: domain.first]
    return samples


def check_sizes(samples: Sequence[Sample], files: KnownFiles) -> None:
    """Raises InputError when a label file has another size than its image, or is not an image.

    Reads headers only, and those of unchanged files once (see uda/data/known_files.py), so that a
    run of days does not stop at a wrong file after hours.
    """
    labeled = [sample for sample in samples if sample.labels is not None]
    paths = [path for sample in labeled for path in (sample.image, sample.labels) if path]
    headers = files.headers(paths)
    odd = [
        sample
        for sample, image, labels in zip(labeled, headers[::2], headers[1::2], strict=True)
        if not check_fit(sample, image, labels.size)
    ]
    if odd:
        names = ",".join(sample.name for sample in odd[:20])
        raise InputError(
            f"{odd[0].labels} is of another size than its image, as are {len(odd) - 1} more label "
            "files; replace them or, for training, leave them out with --set "
            f"data.exclude={names}"
        )


def check_raw_ids(samples: Sequence[Sample]) -> None:
    """Raises InputError when label files have an id without a class, or train ids where raw ids
    belong.

    Train ids without a 255 among them are raw ids one by one, so no single file gives them away.
    But of sixteen files spread over a data set, one at least shows sky or a car. What values mean
    in a user-defined data set, its description says; there they only have to be listed.
    """
    by_dataset: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.labels is not None:
            by_dataset.setdefault(sample.dataset, []).append(sample)
    for labeled in by_dataset.values():
        space = labeled[0].space
        if space is not None:
            _check_raw_ids(evenly_spaced(labeled, FILES_LOOKED_AT), space)


def _check_raw_ids(looked_at: Sequence[Sample], space: LabelSpace) -> None:
    largest = 0
    for sample in looked_at:
        assert sample.labels is not None
        labels = np.asarray(read_raw_labels(sample.labels, coding=space.coding))
        space.to_train_ids(labels, str(sample.labels))  # refuses what is not a raw id: mostly 255
        largest = max(largest, int(labels.max()))
    require(
        space.name not in LABEL_SPACES or not space.may_hold_train_ids(largest),
        f"{looked_at[0].labels} and {len(looked_at) - 1} more label files have no value above "
        f"{space.num_classes - 1}: these look like train ids, and mapping them again would "
        f"train on nonsense; use the original label files of {space.name}",
    )
