"""What is to be known of images before they are read: turned ones, and those that are converted."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from uda.data.deep_images import Range
from uda.data.files import Header
from uda.data.known_files import KnownFiles
from uda.data.label_files import sizes_fit
from uda.data.samples import Sample
from uda.utilities.errors import require

# EXIF: what a viewer does to the stored picture.
_TURNS = {
    2: "mirrored", 3: "turned by 180 degrees", 4: "mirrored upside down",
    5: "mirrored and turned by 90 degrees", 6: "turned by 90 degrees",
    7: "mirrored and turned by 90 degrees", 8: "turned by 90 degrees",
}  # fmt: skip
_DECIDE = (
    'write orientation = "upright" (labels as viewers show the photograph) or orientation = '
    '"stored" (labels as the pixels are stored) into the TOML file of the data set'
)


def check_fit(sample: Sample, image: Header, labels: tuple[int, int]) -> bool:
    """Whether the labels of a sample, (height, width), have the size that its image is read at.

    Raises InputError, naming the file, when the camera has noted a turned picture and nothing says
    whether the labels are turned, too: learning them might be learning them upside down.
    """
    size = image.size_when(upright=bool(sample.upright))
    fit = sizes_fit(size, labels, translated=sample.translated)
    if image.orientation == 1 or sample.upright is not None:
        return fit
    turned = sizes_fit(image.size[::-1], labels, translated=sample.translated)
    by_side = image.orientation > 4 and fit != turned  # the sizes decide
    turn = f"{sample.image} is {_TURNS[image.orientation]} by its EXIF orientation"
    require(
        not (by_side and turned),
        f"{turn}, and its labels {sample.labels} are of the turned picture: write orientation = "
        '"upright" into the TOML file of the data set',
    )
    require(
        by_side or not (fit or turned),
        f"{turn}, and nothing says whether its labels {sample.labels} are: look at both, then "
        f"{_DECIDE}",
    )
    return fit


def kind_remarks(samples: Sequence[Sample], files: KnownFiles) -> list[str]:
    """What is to be said of images that are converted to 8-bit RGB, and of turned ones that are
    used as stored: a line for each data set and kind."""
    kinds: dict[tuple[str, str, Range | None], Counter[str]] = {}
    turned: dict[str, list[Path]] = {}
    headers = files.headers([sample.image for sample in samples])
    counts = Counter(sample.dataset for sample in samples)
    for sample, header in zip(samples, headers, strict=True):
        if header.kind:
            key = (sample.dataset, header.kind, sample.image_range if header.bits > 8 else None)
            kinds.setdefault(key, Counter())[str(sample.image)] += 1
        if header.orientation != 1 and sample.labels is None and sample.upright is None:
            turned.setdefault(sample.dataset, []).append(sample.image)
    return [
        f"{sum(own.values())} of {counts[name]} images of {name} are {kind}"
        f"{_scaled(image_range)}, the first is {next(iter(own))}: converted to 8-bit RGB"
        for (name, kind, image_range), own in kinds.items()
    ] + [
        f"{len(own)} of {counts[name]} images of {name} are turned by their EXIF orientation, the "
        f'first is {own[0]}: used as stored; write orientation = "upright" into its TOML file to '
        "turn them"
        for name, own in turned.items()
    ]


def kinds_of_files(headers: Sequence[Header], image_range: Range | None) -> list[str]:
    """`kind_remarks` for images that are of no data set."""
    found = Counter(header.kind for header in headers if header.kind)
    return [
        f"{count} of {len(headers)} images are {kind}"
        f"{_scaled(image_range if 'bits' in kind else None)}: converted to 8-bit RGB"
        for kind, count in found.items()
    ]


def _scaled(image_range: Range | None) -> str:
    """What becomes of values of more than 8 bits."""
    if image_range is None:
        return ""
    low, high = image_range
    return f", their values {low:g} to {high:g} become 0 to 255 (image_range)"
