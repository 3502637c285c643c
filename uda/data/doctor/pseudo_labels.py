"""What is wrong with a folder of pseudo-labels."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from uda.data.doctor.contents import Facts, unreadable, written
from uda.data.doctor.findings import Finding, Item, finding
from uda.data.doctor.listing import Listing
from uda.data.pseudo_label_folder import (
    Manifest,
    check_classes,
    disagreements,
    file_name,
    read_manifest,
)
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.utilities.errors import InputError

_SHARE_TOLERANCE = 0.001  # of all pixels

_ANEW = "create the labels again with pseudo_label.py"


class PseudoLabels(NamedTuple):
    """A folder whose manifest could be read, and its files that belong to images."""

    folder: Path
    manifest: Manifest
    files: dict[Path, Path]  # label file to image

    @property
    def name(self) -> str:
        return f"pseudo-labels {self.folder}"


def list_pseudo_labels(
    folder: Path, listings: Iterable[Listing], space: LabelSpace, *, subset: bool, strict: bool
) -> tuple[PseudoLabels | None, list[Finding]]:
    """The folder's files for the images of `listings`, and what does not agree between them.

    With `strict` these are the target of a preset, of which each image needs a label; without, the
    folder may be for a part of them.
    """
    where = f"pseudo-labels {folder}"
    images: dict[str, Path] = {}
    try:
        manifest = read_manifest(folder)
        check_classes(folder, manifest, space)
        listed = set(manifest.images)
        for listing in listings:
            own = {sample.stem: sample.image for sample in listing.samples}
            if strict or listed & set(own):
                images |= own
        disagreeing = disagreements(folder, manifest, set(images), subset=subset)
    except InputError as error:
        found = Finding(
            kind="manifest", where=where, severity="problem", text=str(error), fix=_ANEW
        )
        return None, [found]
    findings = []
    for text, stems in disagreeing:
        partly = not strict and text.startswith("target images")
        findings += finding(
            kind="manifest", where=where, severity="note" if partly else "problem", text=text,
            fix=f"{_ANEW} for this target, or restore what was removed",
            items=[Item(stem) for stem in sorted(stems)],
        )  # fmt: skip
    if manifest.image_count != len(listed):
        text = f"the manifest counts {manifest.image_count} images and names {len(listed)}"
        findings.append(
            Finding(kind="manifest", where=where, severity="problem", text=text, fix=_ANEW)
        )
    paths = {folder / file_name(stem): images[stem] for stem in sorted(listed & set(images))}
    files = {path: image for path, image in paths.items() if path.is_file()}
    return PseudoLabels(folder, manifest, files), findings


def check_pseudo_labels(labels: PseudoLabels, facts: Facts, space: LabelSpace) -> list[Finding]:
    """What is wrong with the contents of the files."""
    found = {path: facts[path, "labels"] for path in labels.files}
    counts = {path: own.counts for path, own in found.items() if not own.error}
    allowed = {*range(space.num_classes), IGNORE_INDEX}
    strange = {path: sorted(set(values) - allowed) for path, values in counts.items()}
    odd = []
    for path, image in labels.files.items():
        own, size = found[path].size, facts[image, "image"].size
        if own and size and own != size:
            odd.append(Item(str(path), f"{written(own)}, its image {written(size)}"))
    return [
        *unreadable(labels.name, found.values()),
        *finding(
            kind="values", where=labels.name,
            text=f"files have values that are not train ids (0..{space.num_classes - 1}, 255)",
            fix=_ANEW,
            items=[Item(str(p), f"value {values[0]}") for p, values in strange.items() if values],
        ),
        *finding(
            kind="size", where=labels.name, fix=_ANEW, items=odd,
            text="files are of another size than their images",
        ),
        *(_share_kept(labels, counts) if len(counts) == len(labels.manifest.images) else []),
    ]  # fmt: skip


def _share_kept(labels: PseudoLabels, counts: Mapping[Path, Mapping[int, int]]) -> list[Finding]:
    """The manifest says how many pixels have a label; so it shows when files were replaced."""
    total: Counter[int] = Counter()
    for values in counts.values():
        total.update(values)
    kept = 1 - total[IGNORE_INDEX] / max(total.total(), 1)
    if abs(kept - labels.manifest.share_kept) <= _SHARE_TOLERANCE:
        return []
    text = (
        f"{kept:.2%} of the pixels have a label; the manifest says "
        f"{labels.manifest.share_kept:.2%}: files were changed since it was written"
    )
    return [Finding(kind="manifest", where=labels.name, severity="problem", text=text, fix=_ANEW)]
