"""Which files a set of images consists of, and what is wrong with that before any is opened."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from uda.data.doctor.findings import Finding, Item, finding
from uda.data.file_tree import walk
from uda.data.listing import list_split, on_disk
from uda.data.samples import KnownSplit, Layout, Sample, is_beside, is_left_by_mac
from uda.data.translated_folder import known_split
from uda.utilities.errors import InputError

_PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".ppm")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A split to look at, and what of it is going to be used."""

    layout: Layout
    split: str
    labels: bool | None = None  # None: if they are there and mean anything
    limit: int | None = None  # only the first N images
    exclude: Collection[str] = ()  # names of samples that are not used
    size: tuple[int, int] | None = None  # (height, width) that images will be resized to

    @property
    def name(self) -> str:
        return f"{self.layout.name} {self.split}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The images of a split that are checked, each with its label file if it has one."""

    wish: Wish
    images: int  # in the whole split
    known: KnownSplit | None  # None: the data are not those that their publishers describe
    samples: tuple[Sample, ...] = ()


def list_files_of(wish: Wish, root: Path, *, genuine: bool) -> tuple[Listing, list[Finding]]:
    """What the split consists of, and what is wrong with it; `genuine` data have the known counts.

    `root` is the folder of the data sets.
    """
    folder = root / wish.layout.folder
    known = None
    try:
        known = known_split(wish.layout, folder, wish.split) if genuine else None
        layout = on_disk(wish.layout, folder, wish.split, labeled=wish.labels is not False)
        wish = replace(wish, layout=layout)
        everything = list_split(wish.layout, folder, wish.split, labeled=False)
    except InputError as error:
        missing = Finding(
            kind="missing", where=wish.name, severity="problem", text=str(error),
            fix="correct the patterns or lists in the TOML file" if wish.layout.description else
            "unpack the download so that its folders are as above",
        )  # fmt: skip
        return Listing(wish=wish, images=0, known=known), [missing]
    used = [s for s in everything if s.name not in wish.exclude][: wish.limit]
    samples, findings = _with_labels(wish, folder, used)
    beside = [sample for _, sample in _other_splits(wish, folder)]
    findings += _count(wish, known, len(everything))
    findings += _names(wish, everything)
    findings += _others(wish, folder, [*everything, *beside])
    return Listing(wish=wish, images=len(everything), known=known, samples=tuple(samples)), findings


def twice_used(listings: Iterable[Listing]) -> list[Finding]:
    """Images of one name in two splits of a data set."""
    where: defaultdict[str, list[str]] = defaultdict(list)
    for listing in listings:
        for name in {sample.name for sample in listing.samples}:
            where[name].append(listing.wish.split)
    shared = [
        Item(name, " and ".join(splits)) for name, splits in sorted(where.items()) if splits[1:]
    ]
    return finding(
        kind="names", where="all splits", items=shared, text="images are in two splits",
        fix="remove them from one: no image may be both trained on and scored",
    )  # fmt: skip


def _with_labels(
    wish: Wish, folder: Path, samples: list[Sample]
) -> tuple[list[Sample], list[Finding]]:
    """The samples, with their label files if these are to be read, and what is missing of them."""
    known = wish.layout.known.get(wish.split, KnownSplit(()))
    part = wish.layout.part(wish.split)
    without = known.labels == "none" or part.labels is None
    if wish.labels is False or (wish.labels is None and without):
        return samples, []
    label_folder = wish.layout.folders(folder, wish.split)[1]
    if wish.labels is None and known.labels == "optional" and not label_folder.is_dir():
        return samples, [
            Finding(
                kind="no labels", where=wish.name, severity="note",
                text=f"{label_folder} does not exist",
                fix="a target needs no labels; to train on them or to score, unpack them there",
            )
        ]  # fmt: skip
    present = set(_walk(label_folder))
    paired = [
        s._replace(labels=path if path in present else None)
        for s in samples
        for path in [wish.layout.label_file(folder, wish.split, s.image)]
    ]
    findings = finding(
        kind="no labels", where=wish.name, text="images have no label file",
        fix=f"complete the download of the labels in {label_folder}, or remove the images; "
        "training on labels and scoring refuse to start",
        items=[Item(str(s.image)) for s in paired if s.labels is None],
    )  # fmt: skip
    if wish.limit is None and not wish.exclude and not wish.layout.translated:
        findings += _labels_alone(wish, folder, present, paired)
    return paired, findings


def _other_splits(wish: Wish, folder: Path) -> list[tuple[str, Sample]]:
    """The samples of other splits whose images are in the same folder, with their split: splits by
    a list or a seed share one."""
    layout, own = wish.layout, wish.layout.folders(folder, wish.split)[0]
    found: list[tuple[str, Sample]] = []
    for split in layout.splits:
        if split != wish.split and layout.folders(folder, split)[0] == own:
            with suppress(InputError):  # of that split, which is not checked
                samples = list_split(layout, folder, split, labeled=False)
                found += [(split, sample) for sample in samples]
    return found


def _labels_alone(
    wish: Wish, folder: Path, present: set[Path], samples: list[Sample]
) -> list[Finding]:
    pattern = wish.layout.part(wish.split).labels
    suffix = pattern.suffix if pattern else ""
    used = {sample.labels for sample in samples} | {
        wish.layout.label_file(folder, split, sample.image)
        for split, sample in _other_splits(wish, folder)
    }
    labeled = {path.name.removesuffix(suffix) for path in used if path is not None}
    alone = [
        path
        for path in sorted(present - used)
        if path.name.endswith(suffix) and not is_left_by_mac(path.name)
        if not _is_companion(path.name.removesuffix(suffix), labeled)
    ]
    return finding(
        kind="no image", where=wish.name, severity="note", text="label files have no image",
        fix="complete the download of the images; training passes these label files over",
        items=[Item(str(path)) for path in alone],
    )  # fmt: skip


def _is_companion(stem: str, labeled: Collection[str]) -> bool:
    """Whether a file says something else about an image with labels: `x_inst` of `x`."""
    places = (place for place, char in enumerate(stem) if place and not char.isalnum())
    return any(stem[:place] in labeled for place in places)


def _count(wish: Wish, known: KnownSplit | None, count: int) -> list[Finding]:
    if known is None or count in known.counts:
        return []
    expected = " or ".join(map(str, known.counts))
    few = count < max(known.counts)
    return [
        Finding(
            kind="count", where=wish.name, severity="problem" if few else "note",
            text=f"{count} images; the data set has {expected}",
            fix="complete the download: some of it is missing" if few else
            "look for files that are not of the data set; training uses them all",
        )
    ]  # fmt: skip


def _names(wish: Wish, samples: list[Sample]) -> list[Finding]:
    """Images of one name, and images whose names differ in case only."""
    groups: defaultdict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        groups[sample.stem.lower()].append(sample)
    same, alike = [], []
    for group in groups.values():
        stems = {sample.stem for sample in group}
        if len(stems) < len(group):
            same.append(Item(group[0].stem, ", ".join(str(s.image.parent) for s in group)))
        if len(stems) > 1:
            alike.append(Item(", ".join(sorted(stems))))
    return finding(
        kind="names", where=wish.name, items=same,
        text="names belong to several images: pseudo-labels and data.exclude go by the name",
        fix="keep one image of each name; training refuses to start",
    ) + finding(
        kind="case", where=wish.name, severity="note", items=alike,
        text="names differ in case only: copied to a disk of Windows or macOS, one file replaces "
        "the other",
        fix="rename or remove one of them",
    )  # fmt: skip


def _others(wish: Wish, folder: Path, samples: list[Sample]) -> list[Finding]:
    """Files among the images that are not read as such."""
    listed = {sample.image for sample in samples}
    images = wish.layout.folders(folder, wish.split)[0]
    others = [
        path
        for path in sorted(_walk(images))
        if path not in listed and not is_beside(wish.layout, path.relative_to(folder).as_posix())
    ]
    of_mac = [path for path in others if is_left_by_mac(path.name)]
    part = wish.layout.part(wish.split)
    pictures = [
        path
        for path in others
        if path.suffix.lower() in _PICTURES
        and path not in of_mac
        # Labels may lie beside their images.
        and (
            part.labels is None
            or part.labels.match(path.relative_to(folder).as_posix(), part.folder) is None
        )
    ]
    return finding(
        kind="left by a Mac", where=wish.name, severity="note",
        text="files have nothing but macOS attributes of other files",
        fix=f"find {images} -name '._*' -delete; nothing here reads them, other programs do",
        items=[Item(str(path)) for path in of_mac],
    ) + finding(
        kind="not read", where=wish.name, severity="note",
        text="pictures are not where or not named as the images of the data set",
        fix=f"nothing here reads them; expected {wish.layout.expected}",
        items=[Item(str(path)) for path in pictures],
    )  # fmt: skip


def _walk(folder: Path) -> list[Path]:
    found = walk(folder, hidden=True) if folder.is_dir() else ()
    return [folder / one.within / one.name for one in found]
