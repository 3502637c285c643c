"""Label files as the loader reads them: flipped, cut, of odd chunks, of other kinds."""

import io
from pathlib import Path
from random import Random

import numpy as np
from fuzz_guard import Tally, attempt, both_runs
from fuzz_mutations import mutated_picture
from PIL import Image

from factories import raw_labels
from uda.data.files import image_size, read_image
from uda.data.label_files import read_train_ids
from uda.data.prediction_folder import read_prediction
from uda.labels.spaces import CITYSCAPES, LabelSpace

SIZE = (16, 24)  # pixels (height, width)
COLORED = LabelSpace("drawn", ("all",), ("all",), ((0, 0, 0),), {0: 0}, raw_colors=((0, 0, 0),))


def saved(image: Image.Image, kind: str = "PNG") -> bytes:
    target = io.BytesIO()
    image.save(target, kind)
    return target.getvalue()


def whole_files() -> list[bytes]:
    """Label files as they should be, and files of other kinds, which are met under their names."""
    labels = Image.fromarray(raw_labels(0, SIZE))
    palette = labels.copy()
    palette.putpalette([value % 256 for value in range(3 * 35)])
    color = Image.fromarray(np.zeros((*SIZE, 3), np.uint8))
    pngs = [saved(labels), saved(palette), saved(color), saved(labels.convert("1"))]
    return 4 * pngs + [saved(labels, kind) for kind in ("GIF", "BMP", "TIFF", "JPEG", "EPS", "PPM")]


@both_runs
def test_label_files(total: int, tmp_path: Path) -> None:
    tally, path, wholes = Tally("label files"), tmp_path / "labels.png", whole_files()
    for number in range(total // 4):
        random = Random(number)
        path.write_bytes(mutated_picture(random.choice(wholes), random))
        attempt(
            tally,
            tmp_path,
            lambda: read_train_ids(path, image_size(path), CITYSCAPES),
            lambda: read_train_ids(path, image_size(path), COLORED),
            lambda: read_prediction(path, ids="raw", space=CITYSCAPES),
        )
        attempt(Tally("as an image"), tmp_path, lambda: read_image(path))
    print(tally)
