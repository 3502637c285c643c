"""The page of data sets: images with their labels, class shares, sizes, colors, what is wrong."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from uda.data.doctor.check import Report
from uda.data.doctor.contents import ContentSummary, written
from uda.data.doctor.findings import listed
from uda.data.doctor.listing import Listing
from uda.data.files import read_image
from uda.data.label_files import read_train_ids
from uda.data.samples import Sample, evenly_spaced
from uda.labels.spaces import IGNORE_INDEX, LabelSpace
from uda.reports.page import write_page
from uda.reports.pictures import PictureBudget
from uda.translation.color_statistics import color_statistics
from uda.utilities.errors import InputError, shown

_COLOR_SIDE = 128  # pixels: of images that colors are measured on
_NAMED = 4  # classes below a picture
_SIZES = 8

Progress = Callable[[Iterable[Sample], int], Iterable[Sample]]


def data_page(report: Report, path: Path, *, images: int, command: str, progress: Progress) -> Path:
    """Writes the page of what the check of the data has found to `path`, with up to `images`
    pictures of each set, evenly spaced; the path.

    An image or label file that cannot be used is named instead of shown. Raises WriteError when
    the page cannot be written.
    """
    budget = PictureBudget(3.5 * images * len(report.sets))
    sets = [_set(listing, summary, images, budget, progress) for listing, summary in report.sets]
    values = {
        "report": report,
        "sets": sets,
        "findings": [(found, listed(found.items, 5)) for found in report.findings],
        "tables": list(_class_tables(report)),
        "command": command,
    }
    return write_page(path, "data.html", values)


def _set(
    listing: Listing,
    summary: ContentSummary,
    images: int,
    budget: PictureBudget,
    progress: Progress,
) -> dict[str, Any]:
    space = listing.wish.layout.label_space
    pictures, colors, unusable = [], list[Tensor](), []
    chosen = evenly_spaced(listing.samples, images) if listing.samples else []
    for sample in progress(chosen, len(chosen)):
        try:
            picture, small = _picture(sample, space, budget)
        except InputError as error:
            unusable.append(str(error))
            continue
        pictures.append(picture)
        colors.append(small)
    return {
        "name": listing.wish.name,
        "images": listing.images,
        "known": " or ".join(map(str, listing.known.counts)) if listing.known else "-",
        "label_files": summary.label_files,
        "sizes": _sizes(summary.sizes),
        "pictures": pictures,
        "unusable": unusable,
        "space": list(zip(space.report_names, space.palette, strict=True)),
        "colors": _colors(colors),
    }


def _sizes(sizes: Counter[tuple[int, int]]) -> str:
    said = [f"{written(size)} ({count})" for size, count in sizes.most_common(_SIZES)]
    more = len(sizes) - _SIZES
    return ", ".join(said) + (f" and {more} more" if more > 0 else "") or "-"


def _picture(
    sample: Sample, space: LabelSpace, budget: PictureBudget
) -> tuple[dict[str, Any], Tensor]:
    """An image with its labels for the page, and the image as small as colors need it."""
    image = read_image(sample.image, upright=bool(sample.upright), image_range=sample.image_range)
    labels, said = None, "no labels"
    if sample.labels is not None:
        labels = read_train_ids(sample.labels, (image.height, image.width), sample.space or space)
        said = _words(labels, space)
    small = image.copy()
    small.thumbnail((_COLOR_SIDE, _COLOR_SIDE))
    picture = {
        "name": sample.stem,
        "image": budget.of(image, parts=2.5),
        "labels": None if labels is None else budget.of_map(budget.smaller(labels), space.palette),
        "said": said,
        "shares": {} if labels is None else _shares(labels, space),
    }
    return picture, _tensor(small)


def _tensor(image: Image.Image) -> Tensor:
    """(3, H, W) float in [0, 1]."""
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255


def _shares(labels: npt.NDArray[np.uint8], space: LabelSpace) -> dict[int, float]:
    """The share of all pixels of each class that there is."""
    counts = np.bincount(labels.ravel(), minlength=IGNORE_INDEX + 1)
    return {i: int(counts[i]) / labels.size for i in range(space.num_classes) if counts[i]}


def _words(labels: npt.NDArray[np.uint8], space: LabelSpace) -> str:
    """The largest classes of an image."""
    shares = _shares(labels, space)
    most = sorted(shares, key=lambda i: -shares[i])
    said = [f"{space.report_names[i]} {100 * shares[i]:.0f} %" for i in most[:_NAMED]]
    more = [f"{len(most) - _NAMED} more"] if len(most) > _NAMED else []
    ignored = float((labels == IGNORE_INDEX).mean())
    return ", ".join([*said, *more, *([f"not labeled {100 * ignored:.0f} %"] if ignored else [])])


def _colors(images: Sequence[Tensor]) -> dict[str, Any] | None:
    """Mean and standard deviation of lightness and of the two color axes of Lab, and the mean as
    sRGB."""
    if not images:
        return None
    found = color_statistics(images)
    mean = torch.cat([image.flatten(1) for image in images], dim=1).mean(dim=1)
    return {
        "mean": found.mean.tolist(),
        "deviation": found.covariance.diagonal().clamp(min=0).sqrt().tolist(),
        "rgb": (255 * mean).round().int().tolist(),
    }


def _class_tables(report: Report) -> Iterator[dict[str, Any]]:
    """A table for each list of classes: the share of each class in each set that has labels."""
    tables: dict[tuple[str, ...], list[tuple[Listing, ContentSummary]]] = {}
    for listing, summary in report.sets:
        if summary.pixels.any():
            names = listing.wish.layout.label_space.report_names
            tables.setdefault(names, []).append((listing, summary))
    for names, sets in tables.items():
        shares = [(summary.pixels / summary.pixels.sum()).tolist() for _, summary in sets]
        expected = sets[0][0].wish.layout.class_shares if sets[0][0].known is not None else ()
        palette = sets[0][0].wish.layout.label_space.palette
        yield {
            "sets": [listing.wish.name for listing, _ in sets],
            "expected": bool(expected),
            "largest": max(map(max, shares)),
            "rows": [
                {
                    "name": name,
                    "color": palette[place],
                    "shares": [of_set[place] for of_set in shares],
                    "showing": [int(summary.showing[place]) for _, summary in sets],
                    "files": [summary.label_files for _, summary in sets],
                    "expected": expected[place] if expected else None,
                }
                for place, name in enumerate(names)
            ],
        }


def default_name(names: Sequence[str]) -> str:
    """What the page of these data sets is called."""
    stems = [Path(name).stem for name in names]
    safe = ["".join(c if c.isalnum() or c in "-_" else "_" for c in stem)[:60] for stem in stems]
    return f"data_{shown('_'.join(safe), 120).strip(chr(39))}.html"
