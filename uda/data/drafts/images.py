"""What a draft says of images: converted ones, their range of values, and turned ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from uda.data.files import Header, range_of
from uda.data.known_files import KnownFiles
from uda.data.picture_kinds import kinds_of_files


class ImageLines(NamedTuple):
    """Lines of the TOML file, and what to check about them."""

    lines: list[str]
    remarks: list[str]


def image_lines(images: Sequence[Path], labels: Mapping[Path, Path]) -> ImageLines:
    """What the headers of all `images` tell; `labels`: the label file of each that has one."""
    files = KnownFiles()
    headers = files.headers(images)
    image_range = range_of(tuple(images))
    lines = []
    if image_range is not None:
        low, high = image_range
        lines.append(f"image_range = [{low:g}, {high:g}]  # of more than 8 bits: black and white")
    remarks = kinds_of_files(headers, image_range)
    turned = {p: h for p, h in zip(images, headers, strict=True) if h.orientation != 1}
    if turned:
        found, certain = _orientation(turned, labels, files)
        lines.append(f'orientation = "{found}"  # {"by the sizes" if certain else "guessed"}')
        unsure = (
            ""
            if certain
            else ": look at some of them beside their labels; if these are the other way round, "
            + ('write "stored"' if found == "upright" else 'write "upright"')
        )
        remarks.append(
            f"{len(turned)} of {len(images)} images are turned by their EXIF orientation, the "
            f'first is {next(iter(turned))}; orientation is "{found}"{unsure}'
        )
    files.finish()
    return ImageLines(lines, remarks)


def _orientation(
    turned: Mapping[Path, Header], labels: Mapping[Path, Path], files: KnownFiles
) -> tuple[str, bool]:
    """How labels are turned, and whether that is certain: by a size that only one way has. Images
    without labels are best upright."""
    labeled = [path for path in turned if path in labels]
    if not labeled:
        return "upright", True
    for path, own in zip(labeled, files.headers([labels[p] for p in labeled]), strict=True):
        stored, upright = (turned[path].size_when(upright=u) for u in (False, True))
        if stored != upright and own.size in (stored, upright):
            return ("stored" if own.size == stored else "upright"), True
    return "stored", False
