"""What is to be said of the images of a set: converted ones, turned ones, and copies."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from uda.data.doctor.file_facts import FileFacts
from uda.data.doctor.findings import Finding, Item, finding
from uda.data.doctor.listing import Listing
from uda.data.files import Header
from uda.data.known_files import KnownFiles
from uda.data.picture_kinds import check_fit
from uda.data.samples import Sample
from uda.utilities.errors import InputError


def converted(listing: Listing, images: Mapping[Sample, FileFacts]) -> list[Finding]:
    """Images that are not 8-bit RGB, by their kind."""
    kinds: defaultdict[str, list[Item]] = defaultdict(list)
    for sample, found in images.items():
        if found.kind:
            kinds[found.kind].append(Item(str(sample.image)))
    described = bool(listing.wish.layout.description)
    return [
        one
        for kind, items in kinds.items()
        for one in finding(
            kind="converted", where=listing.wish.name, severity="note", items=items,
            text=f"images are {kind}: they are converted to 8-bit RGB",
            fix="nothing, if these are the images you meant"
            + ("; image_range says which values become 0 and 255" * (described and "bits" in kind)),
        )
    ]  # fmt: skip


def turned(
    listing: Listing, images: Mapping[Sample, FileFacts], labels: Mapping[Sample, FileFacts]
) -> list[Finding]:
    """Photographs with a turned EXIF orientation whose labels may be turned otherwise, and those
    without labels, which are used as stored."""
    doubtful, stored = [], []
    for sample, found in images.items():
        if found.orientation == 1 or found.size is None:
            continue
        own = labels[sample].size if sample in labels else None
        if own is None:
            stored += [Item(str(sample.image))] if sample.upright is None else []
            continue
        try:
            check_fit(sample, Header(found.size, "", "", 8, found.orientation), own)
        except InputError as error:
            doubtful.append(Item(str(error)))
    where = listing.wish.name
    return finding(
        kind="turned", where=where, items=doubtful,
        text="photographs are turned by their EXIF orientation, and their labels may be not",
        fix="training and scoring refuse to start: say how the labels are",
    ) + finding(
        kind="turned", where=where, severity="note", items=stored,
        text="photographs are turned by their EXIF orientation, and are used as stored",
        fix='write orientation = "upright" into the TOML file to turn them',
    )  # fmt: skip


def duplicates(listings: Iterable[Listing]) -> list[Finding]:
    """Images of a data set with the same bytes under several names: in several of its splits, or
    in one. Only files of equal length are opened."""
    where: dict[Path, tuple[str, str]] = {}
    of_sets: defaultdict[str, list[Path]] = defaultdict(list)
    for listing in listings:
        for sample in listing.samples:
            if sample.image not in where:
                of_sets[listing.wish.layout.name].append(sample.image)
            where.setdefault(sample.image, (listing.wish.name, sample.name))
    files = KnownFiles()
    same = [group for paths in of_sets.values() for group in _equal_files(paths, files)]
    files.finish()
    across, within = list[Item](), list[Item]()
    for group in same:
        if len({where[path][1].lower() for path in group}) == 1:
            continue  # one name for several images is found elsewhere
        names = [f"{where[path][0]}: {where[path][1].rpartition('/')[2]}" for path in group]
        sets = {where[path][0] for path in group}
        (across if len(sets) > 1 else within).append(Item(" = ".join(names)))
    return finding(
        kind="copies", where="all splits", items=across,
        text="images are in two splits under different names, with the same bytes",
        fix="remove them from one: no image may be both trained on and scored",
    ) + finding(
        kind="copies", where="all splits", severity="note", items=within,
        text="images occur several times in a split, with the same bytes",
        fix="nothing, or remove all but one: they count several times",
    )  # fmt: skip


def _equal_files(paths: Iterable[Path], files: KnownFiles) -> list[list[Path]]:
    """Groups of different files with the same bytes."""
    left, same = _of_different_files(paths, files), list[list[Path]]()
    facts: tuple[Callable[[Sequence[Path]], Sequence[int | str]], ...] = (
        files.lengths, files.ends, files.digests
    )  # fmt: skip
    for facts_of in facts:
        groups: defaultdict[int | str, list[Path]] = defaultdict(list)
        for path, fact in zip(left, facts_of(left), strict=True):
            groups[fact].append(path)
        same = [group for group in groups.values() if len(group) > 1]
        left = [path for group in same for path in group]
    return same


def _of_different_files(paths: Iterable[Path], files: KnownFiles) -> list[Path]:
    """Those of `paths` that exist, one for each file: others are further names for it."""
    present = [path for path in paths if path.is_file()]
    first: dict[tuple[int, int], Path] = {}
    for path, stamp in zip(present, files.stamps(present), strict=True):
        first.setdefault(stamp.identity, path)
    return list(first.values())
