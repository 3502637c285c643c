"""What there is to check: all below a data root, or what a preset reads."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from uda.data.config import DataConfig, DomainConfig
from uda.data.doctor.listing import Wish
from uda.data.listing import is_there, list_split
from uda.data.registry import LAYOUTS, layout_named
from uda.data.samples import Layout
from uda.utilities.errors import InputError, require


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is checked."""

    wishes: tuple[Wish, ...]
    pseudo_labels: tuple[Path, ...] = ()
    target: tuple[str, ...] | None = None  # names of the wishes that need all pseudo-labels
    subset: bool = False  # whether the pseudo-labels may be of more images than these


def plan_of_root(root: Path, pseudo_labels: Sequence[Path] = ()) -> Plan:
    """Every known split of every data set below `root`; InputError when there is none.

    Data sets that are files of another one, some of them or with other classes, are not.
    """
    wishes: list[Wish] = []
    by_folder: dict[str, list[Layout]] = {}
    for layout in LAYOUTS.values():
        by_folder.setdefault(layout.folder, []).append(layout)
    for name, layouts in by_folder.items():
        folder = root / name
        found = [
            Wish(layout=layout, split=split)
            for layout in layouts
            for split in layout.splits
            if not layout.part_of and is_there(layout, folder, split)
        ]
        if folder.is_dir():  # one without any split, too: its layout is wrong
            wishes += found or [Wish(layout=layouts[0], split=layouts[0].splits[0])]
    folders = ", ".join(f"{folder}/" for folder in by_folder)
    require(bool(wishes), f"{root} has none of {folders}: give the folder that has them")
    return Plan(wishes=tuple(wishes), pseudo_labels=tuple(pseudo_labels), subset=False)


def plan_of_datasets(
    names: Sequence[str], pseudo_labels: Sequence[Path] = (), *, root: Path | None = None
) -> Plan:
    """Every split of the data sets called `names`, or described by files of these names; of those
    of this library the splits that are below `root`, as far as there are any."""
    wishes: list[Wish] = []
    for layout in map(layout_named, names):
        splits: Sequence[str] = layout.splits
        if root is not None and not layout.description:
            folder = root / layout.folder
            splits = [s for s in splits if is_there(layout, folder, s)] or splits[:1]
        wishes += [Wish(layout=layout, split=split) for split in splits]
    return Plan(wishes=tuple(wishes), pseudo_labels=tuple(pseudo_labels))


def plan_of_preset(data: DataConfig, root: Path, *, dataset: str, split: str) -> Plan:
    """What a run with these settings reads, and the split of `dataset` that it is scored on."""
    wishes = _wishes(data, data.source, root, labels=True)
    target = _wishes(data, data.target, root, labels=data.target_ground_truth)
    for wish in [*target, Wish(layout=layout_named(dataset), split=split, labels=True)]:
        same = [i for i, other in enumerate(wishes) if other.name == wish.name]
        if same:
            other = wishes[same[0]]
            limits = [w.limit for w in (wish, other)]
            both = replace(
                other,
                labels=other.labels or wish.labels,
                limit=None if None in limits else max(n for n in limits if n is not None),
            )
            wishes[same[0]] = both
        else:
            wishes.append(wish)
    return Plan(
        wishes=tuple(wishes),
        pseudo_labels=(Path(data.pseudo_labels),) if data.pseudo_labels and target else (),
        target=tuple(wish.name for wish in target),
        subset=data.target is not None and data.target.first is not None,
    )


def _wishes(
    data: DataConfig, domain: DomainConfig | None, root: Path, *, labels: bool
) -> list[Wish]:
    if domain is None:
        return []
    wishes, left = [], domain.first
    for name in domain.datasets:
        for split in domain.splits:
            wish = Wish(
                layout=layout_named(name), split=split, labels=labels, limit=left,
                exclude=data.exclude, size=None if domain.keep_ratio else domain.size,
            )  # fmt: skip
            if left is None or left > 0:
                wishes.append(wish)
            if left is not None:
                left = max(0, left - _images(wish, root))
    return wishes


def _images(wish: Wish, root: Path) -> int:
    """How many images of the split can be used; 0 when they cannot be listed."""
    try:
        samples = list_split(wish.layout, root / wish.layout.folder, wish.split, labeled=False)
    except InputError:
        return 0
    return sum(sample.name not in wish.exclude for sample in samples)
