"""The page of a folder of predictions: each photograph under its classes, least sure first."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uda.data.deep_images import Range
from uda.data.files import decode, range_of, read_image
from uda.labels.spaces import LabelSpace
from uda.prediction.inputs import picture_name
from uda.reports.page import write_page
from uda.reports.pictures import PictureBudget
from uda.utilities.errors import InputError, require

_MOST = 500  # pictures of a page
_NAMED = 4  # classes below a picture
_SMALL = 50  # unreadable images that are named


def prediction_page(
    folder: Path,
    images: Mapping[str, Path],
    *,
    space: LabelSpace,
    facts: Mapping[str, object],
    unreadable: Mapping[str, str],
    image_range: Range | None = None,
) -> Path:
    """Writes the page of the predictions in `folder` beside it, as <folder>.html: a folder of
    predictions has nothing else in it. Returns its path.

    images: those that were predicted, by their names; up to 500 of them are shown, evenly spaced.
    unreadable: why others were not; image_range: see `Sample`, by default what the images use.
    The folder must have ids; confidence is shown if it is there. Raises WriteError when the page
    cannot be written.
    """
    every = list(images)
    places = np.linspace(0, len(every) - 1, min(len(every), _MOST)).round().astype(int)
    names = [every[place] for place in places]
    has_confidence = (folder / "confidence").is_dir()
    budget = PictureBudget((3.5 + has_confidence) * len(names))
    image_range = image_range or range_of(tuple(images.values()))
    pictures, lost = [], []
    pixels = np.zeros(space.num_classes, np.int64)
    for name in names:
        try:
            photograph = read_image(images[name], upright=True, image_range=image_range)
            picture, counts = _picture(folder, name, photograph, space, budget, has_confidence)
        except InputError as error:
            lost.append(str(error))
            continue
        pictures.append(picture)
        pixels += counts
    pictures.sort(key=lambda p: (p["confidence"] is None, p["confidence"], p["name"]))
    total = max(int(pixels.sum()), 1)
    classes = zip(space.report_names, space.palette, (pixels / total).tolist(), strict=True)
    values = {
        "folder": folder.name,
        "facts": [(name.replace("_", " "), str(value)) for name, value in facts.items()],
        "count": len(images),
        "pictures": pictures,
        "classes": [{"name": n, "color": c, "share": s} for n, c, s in classes],
        "largest": float(pixels.max()) / total,
        "unreadable": [*list(unreadable.values())[:_SMALL], *lost],
        "more_unreadable": max(0, len(unreadable) - _SMALL),
    }
    return write_page(page_beside(folder), "predictions.html", values)


def page_beside(folder: Path) -> Path:
    """Where the page of a folder of predictions is."""
    return folder.with_name(f"{folder.name}.html")


def _picture(
    folder: Path,
    name: str,
    photograph: Image.Image,
    space: LabelSpace,
    budget: PictureBudget,
    has_confidence: bool,
) -> tuple[dict[str, Any], Any]:
    """One image for the page, and the pixels of each class in it."""
    ids = np.asarray(decode(folder / "ids" / picture_name(name)))
    require(
        ids.ndim == 2 and ids.dtype == np.uint8 and int(ids.max()) < space.num_classes,
        f"{folder / 'ids' / picture_name(name)} has not the classes of {space.name}",
    )
    counts = np.bincount(ids.ravel(), minlength=space.num_classes)
    confidence, sure = None, None
    if has_confidence:
        values = np.asarray(decode(folder / "confidence" / picture_name(name)).convert("L"))
        sure = float(values.mean()) / 255
        confidence = budget.of(Image.fromarray(budget.smaller(values)))
    most = [int(i) for i in np.argsort(-counts, kind="stable") if counts[i]]
    said = [f"{space.report_names[i]} {100 * counts[i] / ids.size:.0f} %" for i in most[:_NAMED]]
    said += [f"{len(most) - _NAMED} more"] if len(most) > _NAMED else []
    return {
        "name": name,
        "image": budget.of(photograph, parts=2.5),
        "predicted": budget.of_map(budget.smaller(ids), space.palette),
        "confidence_picture": confidence,
        "confidence": sure,
        "said": ", ".join(said),
        "shares": {i: counts[i] / ids.size for i in most},
    }, counts
