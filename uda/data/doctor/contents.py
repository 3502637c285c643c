"""What is wrong with the files of a set, once each has been read."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from uda.data.class_range import describe_range, lacks_an_end
from uda.data.doctor.file_facts import FileFacts, Role
from uda.data.doctor.findings import Finding, Item, finding
from uda.data.doctor.images import converted, turned
from uda.data.doctor.listing import Listing
from uda.data.files import Header
from uda.data.label_files import sizes_fit
from uda.data.label_statistics import damaged_by_jpeg
from uda.data.registry import LABEL_SPACES
from uda.data.samples import Sample
from uda.labels.spaces import IGNORE_INDEX, LabelSpace

Facts = Mapping[tuple[Path, Role], FileFacts]
Counts = Mapping[int, int]  # pixels of each value in a label file

ENOUGH_LABELS = 100  # label files from which the share of a class is more than chance
_FACTOR = 30.0  # between a class's share and the expected one; street scenes differ by less
# Of a whole split, classes of a tenth of the pixels and more do not differ by as much.
_LARGE, _FACTOR_OF_LARGE = 0.1, 3.0
_COMMON = 1e-3  # share of the pixels from which a class cannot be missing by chance
_NAMES_IN_FIX = 20  # the rest is in the JSON file


@dataclass(frozen=True, kw_only=True, slots=True)
class ContentSummary:
    """What the files of a set contain."""

    sizes: Counter[tuple[int, int]]  # images of each (height, width)
    label_files: int
    pixels: npt.NDArray[np.int64]  # of each class, in the label files that can be used
    showing: npt.NDArray[np.int64]  # of these files, how many have a pixel of each class


def check_contents(listing: Listing, facts: Facts) -> tuple[ContentSummary, list[Finding]]:
    """What the files of `listing` contain, and what is wrong with it."""
    samples, space = listing.samples, listing.wish.layout.label_space
    images = {sample: facts[sample.image, "image"] for sample in samples}
    labels = {s: facts[s.labels, "labels"] for s in samples if s.labels is not None}
    counts = {sample: found.counts for sample, found in labels.items() if not found.error}
    doubtful = _of_train_ids(counts, space)
    usable = {sample: values for sample, values in counts.items() if sample not in doubtful}
    pixels = _pixels(usable.values(), space)
    findings = [
        *unreadable(listing.wish.name, [*images.values(), *labels.values()]),
        *converted(listing, images),
        *turned(listing, images, labels),
        *_other_sizes(listing, images, labels),
        *_of_jpeg(listing, labels),
        *_enlarged(listing, images),
        *_train_ids(listing, doubtful),
        *_values(listing, usable),
        *_blank(listing, usable),
        *_shares(listing, pixels, len(usable)),
        *_class_range(listing, pixels, len(usable)),
    ]
    sizes = Counter(found.size for found in images.values() if found.size is not None)
    showing = sum((_pixels([one], space) > 0 for one in usable.values()), start=0 * pixels)
    summary = ContentSummary(
        sizes=sizes, label_files=len(labels), pixels=pixels, showing=np.asarray(showing)
    )
    return summary, findings


def unreadable(where: str, files: Iterable[FileFacts]) -> list[Finding]:
    return finding(
        kind="unreadable", where=where, text="files cannot be used",
        fix="replace these files, or unpack them again; training stops at such a file",
        items=[Item(found.error) for found in files if found.error],
    )  # fmt: skip


def _other_sizes(
    listing: Listing, images: Mapping[Sample, FileFacts], labels: Mapping[Sample, FileFacts]
) -> list[Finding]:
    odd = {}
    for sample, found in labels.items():
        facts, own = images[sample], found.size
        if facts.size is None or own is None:
            continue
        image = Header(facts.size, "", "", 8, facts.orientation).size_when(
            upright=bool(sample.upright)
        )
        if not sizes_fit(image, own, translated=sample.translated):
            odd[sample.name] = f"{sample.labels}: {written(own)}, its image {written(image)}"
    names = ",".join(list(odd)[:_NAMES_IN_FIX]) + (",..." if len(odd) > _NAMES_IN_FIX else "")
    return finding(
        kind="size", where=listing.wish.name,
        text="label files are of another size than their images",
        fix="training and scoring refuse to start with them: replace them or, for training, leave "
        f"them out with --set data.exclude={names}",
        items=[Item(name, remark) for name, remark in odd.items()],
    )  # fmt: skip


def _of_jpeg(listing: Listing, labels: Mapping[Sample, FileFacts]) -> list[Finding]:
    return finding(
        kind="jpeg", where=listing.wish.name,
        text="label files look as if they had been saved as JPEG, which invents values at every "
        "boundary: most of their values are rare and lie in thin lines",
        fix="get the original files: classes that JPEG has invented cannot be told from others",
        items=[
            Item(str(sample.labels), f"{len(found.counts)} values, {found.thin} in thin lines")
            for sample, found in labels.items()
            if damaged_by_jpeg(found.thin, len(found.counts))
        ],
    )  # fmt: skip


def _enlarged(listing: Listing, images: Mapping[Sample, FileFacts]) -> list[Finding]:
    wanted = listing.wish.size
    if wanted is None:
        return []
    small = [
        Item(str(sample.image), written(found.size))
        for sample, found in images.items()
        if found.size and (found.size[0] < wanted[0] or found.size[1] < wanted[1])
    ]
    return finding(
        kind="enlarged", where=listing.wish.name, severity="note", items=small,
        text=f"images are smaller than the {written(wanted)} to which the preset resizes them",
        fix="nothing, if these are the images you meant; else get the full resolution",
    )  # fmt: skip


def _of_train_ids(counts: Mapping[Sample, Counts], space: LabelSpace) -> set[Sample]:
    """The samples whose label files have train ids: those with a 255 among nothing but small
    values, or all of them where the whole set has no larger one."""

    def small(values: Counts) -> bool:
        return space.may_hold_train_ids(max(set(values) - {IGNORE_INDEX}, default=0))

    if space.name not in LABEL_SPACES:  # what values mean is as the user's file says
        return set()
    if all(map(small, counts.values())):
        return set(counts)
    return {s for s, values in counts.items() if IGNORE_INDEX in values and small(values)}


def _train_ids(listing: Listing, doubtful: set[Sample]) -> list[Finding]:
    highest = listing.wish.layout.label_space.num_classes - 1
    return finding(
        kind="train ids", where=listing.wish.name,
        text=f"label files have no value above {highest} but 255: these look like train ids, and "
        "mapping them again would train on nonsense",
        fix="unpack the data set's original label files over them",
        items=[Item(str(sample.labels)) for sample in listing.samples if sample in doubtful],
    )  # fmt: skip


def _values(listing: Listing, usable: Mapping[Sample, Counts]) -> list[Finding]:
    space = listing.wish.layout.label_space
    allowed = set(space.raw_to_train)
    strange = {s: sorted(set(values) - allowed) for s, values in usable.items()}
    return finding(
        kind="values", where=listing.wish.name,
        text=f"label files have values that are not raw ids of {space.name} "
        f"({min(allowed)}..{max(allowed)})",
        fix=_advice(listing, "give each value to a class or to ignore in the TOML file")
        + "; training stops at such a value",
        items=[Item(str(s.labels), f"values {_some(v)}") for s, v in strange.items() if v],
    )  # fmt: skip


def _advice(listing: Listing, own: str) -> str:
    """What to do about labels: a published set can be unpacked again, `own` files cannot."""
    published = "unpack the data set's original label files over them"
    return own if listing.wish.layout.description else published


def _blank(listing: Listing, usable: Mapping[Sample, Counts]) -> list[Finding]:
    trained = set(listing.wish.layout.label_space.trained_raw_ids)
    return finding(
        kind="blank", where=listing.wish.name, severity="note",
        text="label files have not one pixel of a class that is learned",
        fix="check them: they teach nothing; exclude them with --set data.exclude=NAME,...",
        items=[Item(str(s.labels)) for s, values in usable.items() if not trained & set(values)],
    )  # fmt: skip


def _shares(listing: Listing, pixels: npt.NDArray[np.int64], label_files: int) -> list[Finding]:
    """Classes without a pixel, and classes much rarer or more frequent than they should be."""
    if not pixels.any():
        return []
    layout, enough = listing.wish.layout, label_files >= ENOUGH_LABELS
    names = layout.label_space.classes
    genuine = listing.known is not None
    empty = [train_id for train_id in layout.label_space.labeled if not pixels[train_id]]
    common = {
        train_id
        for train_id in empty
        if enough and genuine and layout.class_shares and layout.class_shares[train_id] > _COMMON
    }
    found = finding(
        kind="empty classes", where=listing.wish.name,
        text=f"classes have no pixel in {label_files} label files, where the data set has many",
        fix="look at the labels: other files may be here, or ids mapped wrongly",
        items=[Item(names[train_id]) for train_id in empty if train_id in common],
    ) + finding(
        kind="empty classes", where=listing.wish.name, severity="note",
        text=f"classes have no pixel in {label_files} label files",
        fix="nothing, if that is how these data are: such classes are not learned, nor scored",
        items=[Item(names[train_id]) for train_id in empty if train_id not in common],
    )  # fmt: skip
    if not (enough and genuine and layout.class_shares):
        return found
    shares = pixels / pixels.sum()

    def far(share: float, expected: float) -> bool:
        large = expected >= _LARGE and listing.wish.limit is None
        factor = _FACTOR_OF_LARGE if large else _FACTOR
        return bool(share and expected) and not 1 / factor < share / expected < factor

    return found + finding(
        kind="class shares", where=listing.wish.name,
        text=f"classes are more than {_FACTOR:.0f} times rarer or more frequent than expected, "
        f"large ones more than {_FACTOR_OF_LARGE:.0f} times",
        fix="look at the labels in colors: ids may be mapped wrongly, or another data set be here",
        items=[
            Item(name, f"{share:.2%} of the pixels, about {expected:.2%} expected")
            for name, share, expected in zip(names, shares, layout.class_shares, strict=True)
            if far(float(share), expected)
        ],
    )  # fmt: skip


def _class_range(
    listing: Listing, pixels: npt.NDArray[np.int64], label_files: int
) -> list[Finding]:
    """A class list that is longer than the range of ids in all files."""
    space, seen = listing.wish.layout.label_space, np.flatnonzero(pixels).tolist()
    if label_files < ENOUGH_LABELS or not lacks_an_end(seen, space):
        return []
    return [
        Finding(
            kind="class range", where=listing.wish.name, severity="note",
            text=describe_range(seen, space, files=label_files),
            fix="compare the class list with what the publishers say about the ids",
        )
    ]  # fmt: skip


def _pixels(files: Iterable[Counts], space: LabelSpace) -> npt.NDArray[np.int64]:
    total = np.zeros(space.num_classes, np.int64)
    for counts in files:
        for value, count in counts.items():
            train_id = space.raw_to_train.get(value, IGNORE_INDEX)
            if train_id != IGNORE_INDEX:
                total[train_id] += count
    return total


def written(size: tuple[int, int]) -> str:
    """A size (height, width) as people write it: 2048x1024 is width x height."""
    return f"{size[1]}x{size[0]}"


def _some(values: list[int]) -> str:
    return ", ".join(map(str, values[:5])) + (", ..." if len(values) > 5 else "")
