"""Pictures of what an adaptation has changed: the photograph, and the classes before and after."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from uda.data.files import read_image
from uda.data.samples import Sample
from uda.evaluation.evaluate import EvaluationConfig, predictions
from uda.labels.spaces import LabelSpace
from uda.models.segmenter import Segmenter
from uda.prediction.pictures import overlaid
from uda.utilities.atomic_files import clear_write_errors, replacing

FOLDER = "comparison"
_LARGEST = 960  # pixels of a picture's longer side
_QUALITY = 88
_COVERED = 0.6  # of a photograph, by the colors of its classes


def save_pictures(
    networks: tuple[Segmenter, Segmenter],
    samples: Iterable[Sample],
    folder: Path,
    *,
    config: EvaluationConfig,
    label_space: LabelSpace,
) -> list[dict[str, str]]:
    """Writes JPEGs of each image below `folder`: it, and what each of the two networks, before and
    after, sees in it. Returns their paths, relative to the folder, by what they are."""
    config = replace(config, label_size=None)
    written: list[dict[str, str]] = []
    for sample in samples:
        shown = read_image(
            sample.image, upright=bool(sample.upright), image_range=sample.image_range
        )
        shown.thumbnail((_LARGEST, _LARGEST))
        photo = np.asarray(shown)
        paths = {"image": sample.stem, "photo": _save(photo, folder, sample, "")}
        for name, network in zip(("before", "after"), networks, strict=True):
            ((_, found),) = predictions(
                network, [sample], config=config, label_space=label_space, workers=0
            )
            ids = Image.fromarray(found.labels.to("cpu").numpy().astype(np.uint8))
            ids = ids.resize(shown.size, Image.Resampling.NEAREST)
            mixed = overlaid(photo, label_space.colorize(np.asarray(ids)), _COVERED)
            paths[name] = _save(mixed, folder, sample, f".{name}")
        written.append(paths)
    return written


def _save(picture: npt.NDArray[np.uint8], folder: Path, sample: Sample, ending: str) -> str:
    path = folder / FOLDER / f"{sample.stem}{ending}.jpg"
    with clear_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        Image.fromarray(picture).save(file, "JPEG", quality=_QUALITY)
    return str(path.relative_to(folder))
